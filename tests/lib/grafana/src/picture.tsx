// Draws a dashboard from the frames that read_cells reads, with Grafana's own components where
// @grafana/ui has them: frames of panels, figures, tables, graphs, bars, the theme. State timelines
// and the top of the page are drawn here, in its likeness; their components are in no package.
import '@fontsource/inter/400.css';
import '@fontsource/inter/500.css';

import {
  type DataFrame,
  dateTime,
  EventBusSrv,
  type FieldDisplay,
  FieldType,
  formattedValueToString,
  getDisplayValueAlignmentFactors,
  getFieldDisplayName,
  getFieldDisplayValues,
  type TimeRange,
  VizOrientation,
} from '@grafana/data';
import {
  BarGauge,
  BigValue,
  BigValueGraphMode,
  GlobalStyles,
  PanelChrome,
  PanelContextProvider,
  ThemeContext,
  TimeSeries,
  VizRepeater,
  type VizRepeaterRenderValueProps,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { type ReactNode, useState } from 'react';
import { createRoot } from 'react-dom/client';

import { nothing } from './nothing';
import type { Panel, Payload, Variable } from './payload';
import { prepare, type Prepared, THEME } from './prepare';
import { states, withMergedThresholds } from './states';

const AXIS_HEIGHT = 20;
const COLUMNS = 24;
const DAY = 86_400_000;
const GAP = 8;
const PAGE_PADDING = 16;
const ROW_HEIGHT = 30;
const TOP_HEIGHT = 104;

// A browser without a window speaks American English, whatever it is asked for.
Intl.NumberFormat = new Proxy(Intl.NumberFormat, {
  apply: (format, _, [locale = 'en-IN', options]) => new format(locale, options),
  construct: (format, [locale = 'en-IN', options]) => new format(locale, options),
});

interface View extends Prepared {
  height: number;
  timeRange: TimeRange;
  width: number;
}

const VIEWS: Record<string, (view: View) => ReactNode> = {
  bargauge: Bars,
  stat: Figures,
  'state-timeline': Timeline,
  table: Table,
  timeseries: Graph,
};

function Figures(view: View) {
  const { options } = view.panel;
  return (
    <Repeated
      view={view}
      render={({ alignmentFactors, count, height, value, width }) => (
        <BigValue
          alignmentFactors={alignmentFactors}
          colorMode={options?.colorMode}
          count={count}
          disableWideLayout={!options?.wideLayout}
          graphMode={options?.graphMode}
          height={height}
          justifyMode={options?.justifyMode}
          sparkline={value.sparkline}
          textMode={options?.textMode}
          theme={THEME}
          value={value.display}
          width={width}
        />
      )}
    />
  );
}

function Bars(view: View) {
  const { options } = view.panel;
  return (
    <Repeated
      view={view}
      render={({ alignmentFactors, height, orientation, value, width }) => (
        <BarGauge
          alignmentFactors={alignmentFactors}
          display={value.view?.getFieldDisplayProcessor(value.colIndex!)}
          displayMode={options?.displayMode}
          field={value.field}
          height={height}
          orientation={orientation}
          showUnfilled={options?.showUnfilled}
          theme={THEME}
          value={value.display}
          valueDisplayMode={options?.valueMode}
          width={width}
        />
      )}
    />
  );
}

type Repetition = VizRepeaterRenderValueProps<
  FieldDisplay,
  ReturnType<typeof getDisplayValueAlignmentFactors>
>;

function Repeated({ render, view }: { render: (one: Repetition) => ReactNode; view: View }) {
  const { frames: data, height, panel, replace: replaceVariables, width, ...more } = view;
  const { graphMode, orientation = VizOrientation.Auto, reduceOptions } = panel.options ?? {};
  const sparkline = (graphMode ?? BigValueGraphMode.None) !== BigValueGraphMode.None;
  return (
    <VizRepeater
      autoGrid
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      getValues={() =>
        getFieldDisplayValues({ data, reduceOptions, replaceVariables, sparkline, ...more })
      }
      height={height}
      itemSpacing={3}
      orientation={orientation}
      renderCounter={0}
      renderValue={(one: Repetition) => <>{render(one)}</>}
      source={data}
      width={width}
    />
  );
}

function Table({ fieldConfig, frames, height, panel, timeRange, width }: View) {
  const { cellHeight, showHeader = true, sortBy } = panel.options ?? {};
  return (
    <TableNG
      cellHeight={cellHeight}
      data={frames[0]}
      enableVirtualization={false}
      fieldConfig={fieldConfig}
      height={height}
      noHeader={!showHeader}
      sortBy={sortBy}
      structureRev={1}
      timeRange={timeRange}
      width={width}
    />
  );
}

function Graph({ frames, height, panel, timeRange, timeZone, width }: View) {
  return (
    <TimeSeries
      frames={frames.filter((frame) => frame.length > 0)}
      height={height}
      legend={panel.options?.legend}
      options={panel.options}
      timeRange={timeRange}
      timeZone={timeZone}
      width={width}
    />
  );
}

function Timeline({ frames, height, panel, timeRange, width }: View) {
  const [from, to] = [timeRange.from.valueOf(), timeRange.to.valueOf()];
  const series = frames.filter((frame) => frame.length > 0).slice(0, panel.options?.perPage ?? 20);
  const labelWidth = width * 0.28;
  const long = to - from > 2 * DAY;
  const rowHeight = Math.min((height - AXIS_HEIGHT) / series.length, 46);
  const at = (time: number) => ((Math.max(time, from) - from) / (to - from)) * (width - labelWidth);
  return (
    <div style={{ fontSize: THEME.typography.bodySmall.fontSize }}>
      {series.map((frame) => (
        <div key={nameOf(frame, frames)} style={{ display: 'flex', height: rowHeight }}>
          <div style={{ ...ONE_LINE, lineHeight: `${rowHeight}px`, width: labelWidth }}>
            {nameOf(frame, frames)}
          </div>
          <div style={{ flex: 1, position: 'relative' }}>
            {spans(frame, panel).map(({ color, end, from: start, text }) => (
              <div
                key={start}
                style={{
                  ...ONE_LINE,
                  background: `${color}B3`,
                  color: THEME.colors.getContrastText(color),
                  height: rowHeight * 0.8,
                  left: at(start),
                  lineHeight: `${rowHeight * 0.8}px`,
                  position: 'absolute',
                  textIndent: 6,
                  top: rowHeight * 0.1,
                  width: at(end) - at(start),
                }}
              >
                {text}
              </div>
            ))}
          </div>
        </div>
      ))}
      <div style={{ color: THEME.colors.text.secondary, position: 'relative' }}>
        {TICKS.map((share) => (
          <span key={share} style={{ left: labelWidth + share * (width - labelWidth), position: 'absolute' }}>
            {dateTime(from + share * (to - from)).utc().format(long ? 'MM-DD' : 'HH:mm')}
          </span>
        ))}
      </div>
    </div>
  );
}

const TICKS = [0, 0.2, 0.4, 0.6, 0.8];

const ONE_LINE = { overflow: 'hidden', textOverflow: 'ellipsis', whiteSpace: 'nowrap' } as const;

const nameOf = (frame: DataFrame, frames: DataFrame[]) =>
  getFieldDisplayName(frame.fields[1], frame, frames);

function spans(frame: DataFrame, panel: Panel) {
  const [time, value] = frame.fields;
  const found = states(withMergedThresholds(value, panel.options?.mergeValues ?? true), time.values);
  const last = time.values[time.values.length - 1];
  return found.map((state, i) => ({
    ...state,
    color: state.color ?? THEME.colors.text.secondary,
    end: found[i + 1]?.from ?? last,
  }));
}

function Drawn({ prepared, width, height, timeRange }: { prepared: Prepared } & Size) {
  const { panel } = prepared;
  const message = nothing(prepared);
  const Shown = VIEWS[panel.type];
  if (panel.type === 'text') return <div>{prepared.replace(panel.options?.content)}</div>;
  if (!Shown) throw new Error(`no view of panels of type ${panel.type}`);
  if (message && !['stat', 'bargauge'].includes(panel.type)) return <Empty text={message} />;
  return <Shown {...prepared} height={height} timeRange={timeRange} width={width} />;
}

interface Size {
  height: number;
  timeRange: TimeRange;
  width: number;
}

function Empty({ text }: { text: string }) {
  const place = { alignItems: 'center', display: 'flex', height: '100%', justifyContent: 'center' };
  return (
    <div style={{ ...place, color: THEME.colors.text.secondary, textAlign: 'center' }}>{text}</div>
  );
}

function Row({ title }: { title: string }) {
  return <h6 style={{ lineHeight: `${ROW_HEIGHT}px`, margin: 0 }}>⌄ {title}</h6>;
}

function Place({ children, panel, pageWidth }: { children: Child; panel: Panel; pageWidth: number }) {
  const { h, w, x, y } = panel.gridPos;
  const column = (pageWidth - 2 * PAGE_PADDING + GAP) / COLUMNS;
  const height = h * (ROW_HEIGHT + GAP) - GAP;
  const left = PAGE_PADDING + x * column;
  const top = TOP_HEIGHT + y * (ROW_HEIGHT + GAP);
  const width = w * column - GAP;
  return (
    <div style={{ height, left, position: 'absolute', top, width }}>{children(width, height)}</div>
  );
}

type Child = (width: number, height: number) => ReactNode;

function Top({ payload }: { payload: Payload }) {
  const shown = (payload.dashboard.templating?.list ?? []).filter((variable) => variable.hide !== 2);
  const pill = { border: `1px solid ${THEME.colors.border.medium}`, borderRadius: 6, padding: '5px 10px' };
  return (
    <div style={{ padding: `14px ${PAGE_PADDING}px` }}>
      <div style={{ fontSize: 16, fontWeight: 500, marginBottom: 12 }}>
        <span style={{ color: THEME.colors.text.secondary }}>Dashboards › </span>
        {payload.dashboard.title}
        <span style={{ ...pill, float: 'right', fontSize: 13 }}>{rangeText(payload)}</span>
      </div>
      <div style={{ display: 'flex', fontSize: 13, gap: 10 }}>
        {shown.map((variable) => (
          <span key={variable.name} style={pill}>
            <b style={{ fontWeight: 500 }}>{variable.label}</b>{' '}
            <span style={{ color: THEME.colors.text.secondary }}>{chosen(payload, variable)}</span>
          </span>
        ))}
      </div>
    </div>
  );
}

const rangeText = ({ range }: Payload) =>
  [range.from, range.to].map((time) => dateTime(time).utc().format('YYYY-MM-DD HH:mm')).join(' to ');

function chosen({ variables = {} }: Payload, { includeAll, name, type }: Variable) {
  if (type === 'datasource') return 'Prometheus';
  const values = [variables[name] ?? []].flat().filter((value) => value !== '$__all');
  return includeAll && values.length === 0 ? 'All' : values.join(' + ');
}

function Page({ all, payload }: { all: Prepared[]; payload: Payload }) {
  const [width] = useState(window.innerWidth);
  const [from, to] = [dateTime(payload.range.from), dateTime(payload.range.to)];
  const timeRange: TimeRange = { from, raw: { from, to }, to };
  return (
    <ThemeContext.Provider value={THEME}>
      <GlobalStyles />
      <PanelContextProvider value={CONTEXT}>
        <Top payload={payload} />
        {all.map((prepared) => (
          <Place key={prepared.panel.id} pageWidth={width} panel={prepared.panel}>
            {(w, h) => <OnePanel prepared={prepared} width={w} height={h} timeRange={timeRange} />}
          </Place>
        ))}
      </PanelContextProvider>
    </ThemeContext.Provider>
  );
}

function OnePanel({ prepared, ...size }: { prepared: Prepared } & Size) {
  const { panel, replace } = prepared;
  const title = replace(panel.title);
  if (panel.type === 'row') return <Row title={title} />;
  return (
    <PanelChrome
      description={panel.description}
      height={size.height}
      padding={panel.type === 'table' ? 'none' : 'md'}
      title={title}
      width={size.width}
    >
      {(width, height) => (
        <Drawn prepared={prepared} timeRange={size.timeRange} width={width} height={height} />
      )}
    </PanelChrome>
  );
}

const CONTEXT = { eventBus: new EventBusSrv(), eventsScope: 'global' };

async function draw(payload: Payload) {
  const all = await Promise.all(payload.dashboard.panels.map((panel) => prepare(panel, payload)));
  createRoot(document.getElementById('root')!).render(<Page all={all} payload={payload} />);
}

// Texts are measured, so the fonts come first; ₹ is in a file of its own.
const fonts = ['400', '500'].map((weight) => document.fonts.load(`${weight} 14px Inter`, 'a₹'));

Promise.all(fonts)
  .then(() => fetch('payload.json'))
  .then((response) => response.json())
  .then(draw);
