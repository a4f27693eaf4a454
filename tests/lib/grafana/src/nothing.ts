import type { Prepared } from './prepare';

// The message in the middle of a panel that has nothing to draw.
export function nothing({ fieldConfig, frames }: Prepared): string | undefined {
  const empty = frames.every((frame) => frame.length === 0);
  return empty ? (fieldConfig.defaults.noValue ?? 'No data') : undefined;
}
