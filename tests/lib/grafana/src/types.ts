// The types of a dashboard as @grafana/schema has them, as strict as they can be for JSON.
import type * as bar from '@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen';
import type * as gauge from '@grafana/schema/dist/esm/raw/composable/gauge/panelcfg/x/GaugePanelCfg_types.gen';
import type * as pie from '@grafana/schema/dist/esm/raw/composable/piechart/panelcfg/x/PieChartPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as states from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as history from '@grafana/schema/dist/esm/raw/composable/statushistory/panelcfg/x/StatusHistoryPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as text from '@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen';
import type * as lines from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type * as schema from '@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen';
import type { Prometheus } from 'prometheus-query';

// JSON has the value of an enumeration, not its name.
type Plain<T> = T extends string
  ? `${T}`
  : T extends number
    ? number extends T
      ? T
      : `${T}` extends `${infer N extends number}`
        ? N
        : never
    : T extends Array<infer Item>
      ? Array<Plain<Item>>
      : T extends object
        ? { [Key in keyof T]: Plain<T[Key]> }
        : T;

type FieldConfig<Custom> = Omit<Plain<schema.FieldConfig>, 'custom' | 'thresholds'> & {
  custom?: Partial<Plain<Custom>>;
  thresholds?: Thresholds;
};

// The first step of JSON's begins at null, which Grafana reads as minus infinity.
type Thresholds = Omit<Plain<schema.ThresholdsConfig>, 'steps'> & {
  steps: Array<{ color: string; value: number | null }>;
};

type Property<Config, Prefix extends string = ''> = {
  [Key in keyof Config & string]-?: { id: `${Prefix}${Key}`; value?: Config[Key] };
}[keyof Config & string];

interface Override<Custom> {
  matcher: schema.MatcherConfig;
  properties: Array<
    | Property<FieldConfig<unknown>>
    | Property<Plain<Custom>, 'custom.'>
    // A column is hidden so; the schema has only the whole of it, which a table does not read.
    | { id: 'custom.hideFrom.viz'; value?: boolean }
  >;
}

type Query = Plain<Prometheus> & { interval?: string };

type Panel<Type extends string, Options, Custom = object> = Omit<
  Plain<schema.Panel>,
  'fieldConfig' | 'options' | 'targets' | 'type'
> & {
  fieldConfig: { defaults: FieldConfig<Custom>; overrides: Array<Override<Custom>> };
  gridPos: schema.GridPos;
  id: number;
  options: Partial<Plain<Options>>;
  targets: Query[];
  title: string;
  type: Type;
};

export interface Panels {
  barchart: Panel<'barchart', bar.Options, bar.FieldConfig>;
  gauge: Panel<'gauge', gauge.Options>;
  piechart: Panel<'piechart', pie.Options, pie.FieldConfig>;
  row: Omit<Plain<schema.RowPanel>, 'panels'> & { panels: [] };
  stat: Panel<'stat', stat.Options>;
  // Grafana's panel has spanNulls, its schema has not.
  'state-timeline': Panel<
    'state-timeline',
    states.Options,
    states.FieldConfig & { spanNulls?: boolean | number }
  >;
  'status-history': Panel<'status-history', history.Options, history.FieldConfig>;
  table: Panel<'table', table.Options, table.FieldConfig>;
  text: Omit<Panel<'text', text.Options>, 'fieldConfig' | 'targets'>;
  timeseries: Panel<'timeseries', lines.Options, lines.FieldConfig>;
}

// A data source adds keys of its own; a variable that nobody has set yet has no value.
type Variable = Omit<Plain<schema.VariableModel>, 'allValue' | 'current'> & {
  allValue?: string | null;
  current?: Plain<schema.VariableOption> | Record<string, never>;
  definition?: string;
};

type Annotation = Plain<schema.AnnotationQuery> & {
  expr?: string;
  step?: string;
  tagKeys?: string;
  textFormat?: string;
  titleFormat?: string;
  useValueForTime?: string | boolean;
};

// Its panels are checked one by one.
export type Dashboard = Omit<Plain<schema.Dashboard>, 'annotations' | 'panels' | 'templating'> & {
  annotations?: { list?: Annotation[] };
  templating?: { list?: Variable[] };
};
