// What a person reads in each panel of a dashboard, as text.
import {
  type DataFrame,
  type DisplayValue,
  type Field,
  FieldType,
  formattedValueToString,
  getFieldDisplayName,
  getFieldDisplayValues,
  type LinkModel,
  locationUtil,
} from '@grafana/data';
import {
  applySort,
  compileFrameToRecords,
  getColumnTypes,
  getDisplayName,
  getVisibleFields,
} from 'grafana-table-utils';
import { getDisplayValuesForCalcs } from 'grafana-plot-utils';

import { nothing } from './nothing';
import { allPanels, type Panel, type Payload } from './payload';
import { prepare, type Prepared, THEME } from './prepare';
import { reading, show, states, withMergedThresholds } from './states';

type Read = Record<string, unknown>;

const READERS: Record<string, (prepared: Prepared) => Read> = {
  barchart: readTables,
  gauge: readValues,
  piechart: readValues,
  'state-timeline': readStates,
  stat: readValues,
  'status-history': readStates,
  table: readTables,
  timeseries: readSeries,
};

export async function readCells(payload: Payload): Promise<Read[]> {
  locationUtil.initialize({
    config: { appSubUrl: '' },
    getTimeRangeForUrl: () => payload.range,
    getVariablesUrlParams: () => payload.variables ?? {},
  } as unknown as Parameters<typeof locationUtil.initialize>[0]);
  return Promise.all(allPanels(payload.dashboard).map((panel) => readPanel(panel, payload)));
}

async function readPanel(panel: Panel, payload: Payload): Promise<Read> {
  const prepared = await prepare(panel, payload);
  const title = prepared.replace(panel.title);
  const head = { panelId: panel.id, title, type: panel.type };
  if (panel.type === 'row') return head;
  if (panel.type === 'text') return { ...head, text: prepared.replace(panel.options?.content) };
  const read = READERS[panel.type];
  if (!read) throw new Error(`panel ${panel.id}: nobody reads panels of type ${panel.type} yet`);
  return { ...head, ...read(prepared) };
}

function empty(prepared: Prepared): Read | undefined {
  const message = nothing(prepared);
  return message === undefined ? undefined : { message };
}

function readValues({ frames: data, ...prepared }: Prepared): Read {
  const { replace: replaceVariables, panel, ...more } = prepared;
  const reduceOptions = panel.options?.reduceOptions ?? { calcs: [] };
  const found = getFieldDisplayValues({ data, reduceOptions, replaceVariables, ...more });
  return {
    values: found.map(({ display, getLinks }) => ({
      ...reading(display),
      title: display.title ?? '',
      ...linksOf(getLinks?.() ?? []),
    })),
  };
}

function readTables(prepared: Prepared): Read {
  const { frames, panel } = prepared;
  return empty(prepared) ?? { tables: frames.map((frame) => readTable(frame, panel)) };
}

function readTable(frame: DataFrame, panel: Panel): Read {
  const fields = getVisibleFields(frame.fields);
  const names = frame.fields.map(getDisplayName);
  const order = sorted(frame, names, panel.options?.sortBy ?? []);
  return {
    colors: order.map((row) => fields.map((field) => cellColor(field, row))),
    columns: fields.map(getDisplayName),
    links: order.map((row) => fields.map((field) => hrefs(field, row))),
    rows: order.map((row) => fields.map((field) => text(field, field.values[row]))),
    widths: fields.map(({ config: { custom = {} } }) => [custom.width, custom.minWidth ?? 150]),
  };
}

interface SortBy {
  desc?: boolean;
  displayName: string;
}

// The numbers of the rows in the order in which the table shows them at first.
function sorted(frame: DataFrame, names: string[], sortBy: SortBy[]): number[] {
  const columns = sortBy.map(({ desc, displayName }) => ({
    columnKey: displayName,
    direction: desc ? ('DESC' as const) : ('ASC' as const),
  }));
  const strange = sortBy.find(({ displayName }) => !names.includes(displayName));
  if (strange) throw new Error(`sorted by ${strange.displayName}, not by one of ${names}`);
  const rows = compileFrameToRecords(names)(frame);
  const found = applySort(rows, frame.fields, columns, getColumnTypes(frame.fields));
  return found.map((row) => row.__index);
}

// A cell has the colour of its value only where the table asks for it.
function cellColor(field: Field, row: number): string | null {
  const type: string = field.config.custom?.cellOptions?.type ?? 'auto';
  return type.startsWith('color-') ? (show(field, field.values[row]).color ?? null) : null;
}

const hrefs = (field: Field, row: number): string[] =>
  (field.getLinks?.({ valueRowIndex: row }) ?? []).map((link) => link.href);

function readSeries(prepared: Prepared): Read {
  const calcs: string[] = prepared.panel.options?.legend?.calcs ?? [];
  const series = seriesOf(prepared.frames).map(({ field, name }) => ({
    ...reading(show(field, last(field))),
    calcs: getDisplayValuesForCalcs(calcs, field, THEME).map((value) => [
      value.title,
      formattedValueToString(value),
    ]),
    points: field.values.length,
    title: name,
  }));
  return empty(prepared) ?? { series };
}

function readStates(prepared: Prepared): Read {
  const { mergeValues = true } = prepared.panel.options ?? {};
  const timelines = seriesOf(prepared.frames).map(({ field, frame, name }) => ({
    states: states(withMergedThresholds(field, mergeValues), frame.fields[0].values),
    title: name,
  }));
  return empty(prepared) ?? { timelines };
}

function seriesOf(frames: DataFrame[]) {
  return frames.flatMap((frame) =>
    frame.fields
      .filter((field) => field.type !== FieldType.time && !field.config.custom?.hideFrom?.viz)
      .map((field) => ({ field, frame, name: getFieldDisplayName(field, frame, frames) }))
  );
}

const last = (field: Field): unknown => field.values.findLast((v) => v !== null && v !== undefined);
const text = (field: Field, value: unknown): string => formattedValueToString(show(field, value));

const linksOf = (links: LinkModel[]) =>
  links.length ? { links: links.map((link) => link.href) } : {};
