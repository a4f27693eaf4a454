// The states of a state timeline, and the value of any field as it is read.
import {
  type DisplayValue,
  type Field,
  FieldColorModeId,
  FieldType,
  formattedValueToString,
  getActiveThreshold,
  getValueFormat,
  type Threshold,
} from '@grafana/data';

import { THEME } from './prepare';

export interface Reading {
  color: string | null;
  text: string;
}

export interface State extends Reading {
  from: number;
}

export const show = (field: Field, value: unknown): DisplayValue => field.display!(value);

export const reading = (display: DisplayValue): Reading => ({
  color: display.color ?? null,
  text: formattedValueToString(display),
});

// One entry where the state changes.
export function states(field: Field, times: number[]): State[] {
  const all = field.values.map((value, i) => ({ ...reading(show(field, value)), from: times[i] }));
  return all.filter((state, i) => i === 0 || state.text !== all[i - 1].text);
}

// A state timeline that merges equal values and colours by thresholds shows the names of the
// thresholds in place of the values, whatever the mappings say. Grafana's code of it is in no
// package, so the rule is repeated here.
export function withMergedThresholds(field: Field, mergeValues: boolean): Field {
  const { color, thresholds } = field.config;
  const merges = mergeValues && color?.mode === FieldColorModeId.Thresholds;
  if (!merges || !thresholds || field.type !== FieldType.number) return field;
  const display = (value: unknown): DisplayValue => {
    const step = getActiveThreshold(Number(value), thresholds.steps);
    return {
      color: THEME.visualization.getColorByName(step.color),
      numeric: NaN,
      text: thresholdName(field, thresholds.steps, step),
    };
  };
  return { ...field, display };
}

function thresholdName({ config }: Field, steps: Threshold[], step: Threshold): string {
  const next = steps[steps.indexOf(step) + 1];
  const isFirst = step.value === -Infinity && next !== undefined;
  const format = getValueFormat(config.unit ?? '');
  const value = format(isFirst ? next.value : step.value, config.decimals);
  return `${isFirst ? '< ' : ''}${formattedValueToString(value)}${isFirst ? '' : '+'}`;
}
