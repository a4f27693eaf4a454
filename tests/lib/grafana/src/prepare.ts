// From a panel and the answers to its queries to the frames that its visualisation draws: the
// transformations, then units, mappings, colours and the rest, all by @grafana/data.
import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  createTheme,
  type DataFrame,
  displayNameOverrideProcessor,
  type FieldConfigPropertyItem,
  FieldConfigOptionsRegistry,
  type FieldConfigSource,
  FieldType,
  identityOverrideProcessor,
  type GrafanaTheme2,
  numberOverrideProcessor,
  standardTransformers,
  standardTransformersRegistry,
  stringOverrideProcessor,
  thresholdsOverrideProcessor,
  transformDataFrame,
  unitOverrideProcessor,
} from '@grafana/data';
import { lastValueFrom } from 'rxjs';

import { framesOf } from './answers';
import { type Interpolate, interpolator } from './interpolate';
import type { Panel, Payload } from './payload';

export const THEME: GrafanaTheme2 = createTheme({ colors: { mode: 'dark' } });

export interface Prepared {
  fieldConfig: FieldConfigSource;
  frames: DataFrame[];
  panel: Panel;
  replace: Interpolate;
  theme: GrafanaTheme2;
  timeZone: string;
}

standardTransformersRegistry.setInit(() =>
  [...new Set(Object.values(standardTransformers))].map((info) => ({
    editor: () => null,
    id: info.id,
    imageDark: '',
    imageLight: '',
    name: info.name,
    transformation: async () => info,
  }))
);

export async function prepare(panel: Panel, payload: Payload): Promise<Prepared> {
  const { timeZone = 'utc' } = payload;
  const replace = interpolator(payload);
  const fieldConfig = fromTheBottom(panel.fieldConfig ?? { defaults: {}, overrides: [] });
  const frames = applyFieldOverrides({
    data: await transformed(panel, framesOf(panel, payload.answers), replace),
    fieldConfig,
    fieldConfigRegistry: registry(fieldConfig),
    replaceVariables: replace,
    theme: THEME,
    timeZone,
  });
  cacheFieldDisplayNames(frames);
  return { fieldConfig, frames, panel, replace, theme: THEME, timeZone };
}

// JSON has no infinity: Grafana, when it loads a dashboard, lets the first step begin there.
function fromTheBottom(fieldConfig: FieldConfigSource): FieldConfigSource {
  const overridden = fieldConfig.overrides.flatMap((rule) => rule.properties);
  const found = overridden.filter((property) => property.id === 'thresholds');
  for (const thresholds of [fieldConfig.defaults.thresholds, ...found.map((p) => p.value)]) {
    if (thresholds?.steps[0]) thresholds.steps[0].value = -Infinity;
  }
  return fieldConfig;
}

async function transformed(panel: Panel, frames: DataFrame[], interpolate: Interpolate) {
  const steps = panel.transformations ?? [];
  const known = new Set(standardTransformersRegistry.list().map((item) => item.id));
  const unknown = steps.filter((step) => !known.has(step.id)).map((step) => step.id);
  if (unknown.length) {
    throw new Error(`panel ${panel.id}: @grafana/data has no transformation ${unknown.join(', ')}`);
  }
  return lastValueFrom(transformDataFrame(steps, frames, { interpolate }));
}

// The properties that fields have in every panel, and those (custom) that the panel's fields name.
function registry(fieldConfig: FieldConfigSource): FieldConfigOptionsRegistry {
  const written = [
    ...Object.keys(fieldConfig.defaults.custom ?? {}).map((name) => `custom.${name}`),
    ...fieldConfig.overrides.flatMap((rule) => rule.properties.map((property) => property.id)),
  ];
  const custom = [...new Set(written)].filter((id) => id.startsWith('custom.'));
  return new FieldConfigOptionsRegistry(() => [
    ...STANDARD,
    ...custom.map((id) => property(id, identityOverrideProcessor)),
  ]);
}

type Process = FieldConfigPropertyItem['process'];
type ShouldApply = FieldConfigPropertyItem['shouldApply'];

const toAll: ShouldApply = () => true;
const toNumbers: ShouldApply = (field) => field.type === FieldType.number;
const notToTimes: ShouldApply = (field) => field.type !== FieldType.time;

// What Grafana registers of a property, without its editors.
function property(id: string, process: Process, shouldApply = toAll): FieldConfigPropertyItem {
  const noEditor = () => null;
  const isCustom = id.startsWith('custom.');
  const path = id.replace(/^custom\./, '');
  const settings = { expandTemplateVars: id === 'displayName' };
  const look = { editor: noEditor, name: id, override: noEditor };
  return { ...look, id, isCustom, path, process, settings, shouldApply };
}

const STANDARD = [
  property('displayName', displayNameOverrideProcessor),
  property('unit', unitOverrideProcessor),
  property('min', numberOverrideProcessor, toNumbers),
  property('max', numberOverrideProcessor, toNumbers),
  property('fieldMinMax', identityOverrideProcessor, toNumbers),
  property('decimals', numberOverrideProcessor, toNumbers),
  property('noValue', stringOverrideProcessor),
  property('color', identityOverrideProcessor),
  property('thresholds', thresholdsOverrideProcessor),
  property('mappings', identityOverrideProcessor, notToTimes),
  property('links', identityOverrideProcessor),
  property('actions', identityOverrideProcessor),
  property('filterable', identityOverrideProcessor),
];
