// Checks dashboards against the types of @grafana/schema: node check_types.mjs FILE...
// Each dashboard and each panel becomes an assignment in a text that only the compiler sees; what
// it says of an assignment is said of the panel.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';

import ts from 'typescript';

const FOLDER = fileURLToPath(new URL('.', import.meta.url));
const SOURCE = `${FOLDER}src/dashboards.check.ts`;

const statements = process.argv.slice(2).flatMap((file) => {
  const { panels, ...dashboard } = JSON.parse(readFileSync(file, 'utf8'));
  const all = panels.flatMap((panel) => [{ ...panel, panels: [] }, ...(panel.panels ?? [])]);
  const places = all.map((panel) => ({
    type: `Panels[${JSON.stringify(panel.type)}]`,
    value: panel.type === 'row' ? panel : withoutPanels(panel),
    where: `${basename(file)}: panel ${panel.id}, ${panel.title}`,
  }));
  return [{ type: 'Dashboard', value: dashboard, where: basename(file) }, ...places];
});

function withoutPanels({ panels: _, ...panel }) {
  return panel;
}

const lines = statements.map(
  ({ type, value }, i) => `export const value${i}: ${type} = ${JSON.stringify(value)};`
);
const text = ["import type { Dashboard, Panels } from './types';", ...lines].join('\n');

const { config } = ts.readConfigFile(`${FOLDER}tsconfig.json`, ts.sys.readFile);
const { options } = ts.parseJsonConfigFileContent(
  config,
  ts.sys,
  FOLDER,
  { types: [] },
  `${FOLDER}tsconfig.json`
);
const host = ts.createCompilerHost(options);
const { fileExists, getSourceFile } = host;
host.getCurrentDirectory = () => FOLDER;
host.fileExists = (name) => name === SOURCE || fileExists(name);
host.getSourceFile = (name, ...rest) =>
  name === SOURCE ? ts.createSourceFile(name, text, rest[0]) : getSourceFile(name, ...rest);

const program = ts.createProgram([SOURCE], options, host);
const problems = ts.getPreEmitDiagnostics(program).map(({ file, messageText, start }) => {
  const message = ts.flattenDiagnosticMessageText(messageText, '\n');
  if (file?.fileName !== SOURCE) return message;
  const { line } = file.getLineAndCharacterOfPosition(start);
  const near = text.slice(start, start + 60).split('\n')[0];
  return `${statements[line - 1].where}\n  near ${near}\n  ${message.replaceAll('\n', '\n  ')}`;
});
process.stdout.write(`${problems.join('\n')}${problems.length ? '\n' : ''}`);
process.stdout.write(`${statements.length} values checked, ${problems.length} problems\n`);
process.exitCode = problems.length ? 1 : 0;
