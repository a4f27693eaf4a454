// From what Prometheus answers to frames. Grafana does it in two steps. The first is in its server,
// written in Go, and therefore done here by hand; the second is @grafana/prometheus, used as it is.
import {
  type DataFrame,
  DataFrameType,
  type DataQueryRequest,
  type Field,
  FieldType,
  type Labels,
} from '@grafana/data';
import type { PromQuery } from '@grafana/prometheus';
import { transformV2 } from 'prometheus-transform';

import type { Answer, Panel, Response, Sample, Target } from './payload';

const AUTO_LEGEND = '__auto';
const TYPES: Record<string, DataFrameType> = {
  matrix: DataFrameType.TimeSeriesMulti,
  scalar: DataFrameType.NumericMulti,
  vector: DataFrameType.NumericMulti,
};

export function framesOf(panel: Panel, answers: Answer[]): DataFrame[] {
  const targets = (panel.targets ?? []).filter((target) => !target.hide);
  const data = targets.flatMap((target) => serverFrames(target, answerTo(panel, target, answers)));
  const request = { targets } as DataQueryRequest<PromQuery>;
  return transformV2({ data }, request, {}).data;
}

function answerTo(panel: Panel, target: Target, answers: Answer[]): Response {
  const found = answers.find((a) => a.panelId === panel.id && a.refId === target.refId);
  if (!found) {
    throw new Error(`no answer to query ${target.refId} of panel ${panel.id}, ${panel.title}`);
  }
  if (found.response.status !== 'success') {
    throw new Error(`query ${target.refId} of panel ${panel.id}: ${found.response.error}`);
  }
  return found.response;
}

// A frame per series, and one without fields if there is no series.
function serverFrames(target: Target, response: Response): DataFrame[] {
  const { resultType = '', result = [] } = response.data ?? {};
  const samples = resultType === 'scalar' ? [scalar(result as [number, string])] : result;
  if (samples.length === 0) {
    return [{ fields: [], length: 0, refId: target.refId }];
  }
  return (samples as Sample[]).map((sample) => frame(target, resultType, sample));
}

const scalar = (value: [number, string]): Sample => ({ metric: {}, value });

function frame(target: Target, resultType: string, sample: Sample): DataFrame {
  const points = sample.values ?? (sample.value ? [sample.value] : []);
  const time: Field = {
    config: {},
    name: 'Time',
    type: FieldType.time,
    values: points.map(([seconds]) => seconds * 1000),
  };
  const displayNameFromDS = legend(target, sample.metric);
  const value: Field = {
    config: displayNameFromDS ? { displayNameFromDS } : {},
    labels: sample.metric,
    name: sample.metric.__name__ ?? 'Value',
    type: FieldType.number,
    values: points.map(([, text]) => numberOf(text)),
  };
  const meta = { custom: { resultType }, type: TYPES[resultType] };
  return { fields: [time, value], length: points.length, meta, refId: target.refId };
}

function numberOf(text: string): number {
  return text.endsWith('Inf') ? Number(text.replace('Inf', 'Infinity')) : Number(text);
}

function legend({ expr, legendFormat = '' }: Target, labels: Labels): string {
  const named = legendFormat && legendFormat !== AUTO_LEGEND;
  if (named) {
    return legendFormat.replace(/{{\s*(.+?)\s*}}/g, (_, name: string) => labels[name] ?? '');
  }
  if (legendFormat === AUTO_LEGEND && Object.keys(labels).length > 0) {
    return ''; // the second step finds what tells the series apart
  }
  return seriesName(labels) || expr;
}

function seriesName({ __name__ = '', ...labels }: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return pairs.length ? `${__name__}{${pairs.toSorted().join(', ')}}` : __name__;
}
