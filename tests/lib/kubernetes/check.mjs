// Checks resources of the Prometheus operator and of the Gateway API: node check.mjs < resources.json
// The schemas of their own definitions check the values; the types made from them find fields that they
// do not know, which a cluster would drop without a word.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import ts from 'typescript';

const FOLDER = fileURLToPath(new URL('.', import.meta.url));
const SOURCE = `${FOLDER}resources.check.ts`;
const PACKAGES = {
  'monitoring.coreos.com': '@kubernetes-models/prometheus-operator',
  'gateway.networking.k8s.io': '@kubernetes-models/gateway-api',
};
const pathOf = ({ apiVersion }) => `${PACKAGES[apiVersion.split('/')[0]]}/${apiVersion}`;

const resources = JSON.parse(readFileSync(0, 'utf8'));
const problems = [...(await Promise.all(resources.map(wrongValues))).flat(), ...unknownFields()];
process.stdout.write(problems.map((problem) => `${problem}\n`).join(''));
process.stdout.write(`${resources.length} resources checked, ${problems.length} problems\n`);
process.exitCode = problems.length ? 1 : 0;

async function wrongValues(resource) {
  const models = await import(pathOf(resource));
  try {
    new models[resource.kind](resource).validate();
    return [];
  } catch (error) {
    return [`${resource.kind}: ${error.message}`];
  }
}

function unknownFields() {
  const lines = resources.map((resource, i) => {
    const type = `import('${pathOf(resource)}').I${resource.kind}`;
    return `export const r${i}: ${type} = ${JSON.stringify(resource)};`;
  });
  const text = lines.join('\n');
  const options = {
    module: ts.ModuleKind.NodeNext,
    noEmit: true,
    skipLibCheck: true,
    strict: true,
    target: ts.ScriptTarget.ES2022,
    types: [],
  };
  const host = ts.createCompilerHost(options);
  const { fileExists, getSourceFile } = host;
  host.getCurrentDirectory = () => FOLDER;
  host.fileExists = (name) => name === SOURCE || fileExists(name);
  host.getSourceFile = (name, ...rest) =>
    name === SOURCE ? ts.createSourceFile(name, text, rest[0]) : getSourceFile(name, ...rest);
  const program = ts.createProgram([SOURCE], options, host);
  return ts.getPreEmitDiagnostics(program).map(({ file, messageText, start }) => {
    const message = ts.flattenDiagnosticMessageText(messageText, '\n  ');
    const near = file?.fileName === SOURCE ? ` near ${text.slice(start, start + 60)}` : '';
    return `${message}${near}`;
  });
}
