// Checks resources of the Prometheus operator: node check.mjs < resources.json
// The schemas of the operator's own definitions check the values; the types made from them find fields
// that it does not know, which a cluster would drop without a word.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import * as models from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';
import ts from 'typescript';

const FOLDER = fileURLToPath(new URL('.', import.meta.url));
const SOURCE = `${FOLDER}resources.check.ts`;
const PACKAGE = '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';

const resources = JSON.parse(readFileSync(0, 'utf8'));
const problems = [...resources.flatMap(wrongValues), ...unknownFields()];
process.stdout.write(problems.map((problem) => `${problem}\n`).join(''));
process.stdout.write(`${resources.length} resources checked, ${problems.length} problems\n`);
process.exitCode = problems.length ? 1 : 0;

function wrongValues(resource) {
  try {
    new models[resource.kind](resource).validate();
    return [];
  } catch (error) {
    return [`${resource.kind}: ${error.message}`];
  }
}

function unknownFields() {
  const lines = resources.map(
    (resource, i) => `export const r${i}: models.I${resource.kind} = ${JSON.stringify(resource)};`
  );
  const text = [`import type * as models from '${PACKAGE}';`, ...lines].join('\n');
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
