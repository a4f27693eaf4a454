// Variables in texts, as the dashboards write them: $name, ${name}, ${name:format}, and what
// Grafana knows of a field or a value, as in ${__field.labels.account} or ${__data.fields.sid}.
import { type DataFrame, type Field, formattedValueToString, type ScopedVars } from '@grafana/data';

import type { Payload, Variables } from './payload';

const REFERENCE = /\$(?:(\w+)|{([^}:]+)(?::([^}]+))?})/g;

interface Context {
  field?: Field;
  frame?: DataFrame;
  rowIndex?: number;
}

export type Interpolate = (text?: string, scoped?: ScopedVars, format?: unknown) => string;

export function interpolator({ range, variables = {} }: Payload): Interpolate {
  const known: Variables = { ...variables, __from: `${range.from}`, __to: `${range.to}` };
  const special: Record<string, () => string> = {
    __all_variables: () => allVariables(variables),
    __url_time_range: () => `from=${range.from}&to=${range.to}`,
  };
  return (text = '', scoped = {}, format) =>
    text.replace(REFERENCE, (whole, bare: string, braced: string, style?: string) => {
      const name = bare ?? braced;
      if (special[name]) return special[name]();
      const value = known[name] ?? ofTheField(name, scoped.__dataContext?.value as Context);
      return value === undefined ? whole : formatted(name, value, style ?? format);
    });
}

type Format = (text: string, name: string, values: string[]) => string;

const FORMATS: Record<string, Format> = {
  percentencode: (text) => encodeURIComponent(text),
  queryparam: (_, name, values) => queryParameters(name, values),
  raw: (text) => text,
  uriencode: (text) => encodeURI(text),
};

function formatted(name: string, value: string | string[], format: unknown = 'raw'): string {
  const values = [value].flat();
  const text = values.length > 1 ? `{${values.join(',')}}` : (values[0] ?? '');
  const known = FORMATS[String(format)];
  if (!known) throw new Error(`no format ${format} of variable ${name} is known here`);
  return known(text, name, values);
}

const queryParameters = (name: string, values: string[]): string =>
  values.map((value) => `var-${name}=${encodeURIComponent(value)}`).join('&');

const allVariables = (variables: Variables): string =>
  Object.entries(variables)
    .filter(([name]) => !name.startsWith('__'))
    .map(([name, value]) => queryParameters(name, [value].flat()))
    .join('&');

function ofTheField(name: string, context?: Context): string | undefined {
  const { field, frame, rowIndex = 0 } = context ?? {};
  const path = name.replace(/\["?([^"\]]+)"?\]/g, '.$1').split('.');
  if (!field || !frame) return undefined;
  if (path[0] === '__field') return path[1] === 'labels' ? field.labels?.[path[2]] : field.name;
  if (path[0] === '__value') return cell(field, rowIndex, path[1]);
  if (path[0] === '__series') return frame.name ?? '';
  if (path[0] !== '__data') return undefined;
  const other = frame.fields.find((f) => [f.name, f.config.displayName].includes(path[2]));
  return other && cell(other, rowIndex, path[3]);
}

function cell(field: Field, row: number, form?: string): string {
  const value: unknown = field.values[row];
  return form === 'text' && field.display
    ? formattedValueToString(field.display(value))
    : String(value ?? '');
}
