// What Grafana's libraries expect of a browser, given by jsdom. To be imported first.
import { JSDOM } from 'jsdom';

const { window } = new JSDOM('<!doctype html>', {
  pretendToBeVisual: true,
  url: 'https://grafana.example.com/',
});

const names = ['window', 'document', 'navigator', 'Element', 'HTMLElement', 'Node', 'DOMParser'];
for (const name of names) {
  const value: unknown = name === 'window' ? window : Reflect.get(window, name);
  Object.defineProperty(globalThis, name, { configurable: true, value });
}
