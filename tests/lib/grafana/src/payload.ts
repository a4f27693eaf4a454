// What comes in: a dashboard, what its variables are set to, and what Prometheus answered.
import type { DataTransformerConfig, FieldConfigSource } from '@grafana/data';
import type { Prometheus } from 'prometheus-query';

export type Target = Pick<Prometheus, 'expr' | 'format' | 'hide' | 'legendFormat' | 'refId'>;

export interface Panel {
  id: number;
  type: string;
  title?: string;
  description?: string;
  gridPos: { h: number; w: number; x: number; y: number };
  fieldConfig?: FieldConfigSource;
  // Each type of panel has options of its own.
  options?: Record<string, any>;
  panels?: Panel[];
  targets?: Target[];
  transformations?: DataTransformerConfig[];
}

export interface Variable {
  hide?: number;
  includeAll?: boolean;
  label?: string;
  name: string;
  type: string;
}

export interface Dashboard {
  panels: Panel[];
  templating?: { list: Variable[] };
  title: string;
  uid: string;
}

export interface Sample {
  metric: Record<string, string>;
  value?: [number, string];
  values?: Array<[number, string]>;
}

export interface Response {
  status: string;
  error?: string;
  data?: { resultType: string; result: Sample[] | [number, string] };
}

export interface Answer {
  panelId: number;
  refId: string;
  response: Response;
}

export type Variables = Record<string, string | string[]>;

export interface Payload {
  answers: Answer[];
  dashboard: Dashboard;
  range: { from: number; to: number };
  timeZone?: string;
  variables?: Variables;
}

// The panels of rows that are closed stand inside them.
export function allPanels(dashboard: Dashboard): Panel[] {
  return dashboard.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]);
}
