// Numbers and times for people. Missing values are a dash.

export const DASH = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export const known = (value) => typeof value === "number" && Number.isFinite(value);

export const count = (value) => (known(value) ? whole.format(value) : DASH);

/** Three significant places, no exponent. */
export function short(value) {
  if (!known(value)) return DASH;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 100) return whole.format(value);
  if (size >= 10) return value.toFixed(1);
  if (size >= 0.01) return value.toFixed(2);
  return size < 0.0001 ? value.toExponential(1) : value.toFixed(4);
}

export function milliseconds(value) {
  if (!known(value)) return DASH;
  if (value >= 100_000) return `${whole.format(value / 1000)} s`;
  if (value >= 1000) return `${(value / 1000).toFixed(1)} s`;
  return `${value >= 10 ? whole.format(value) : value.toFixed(1)} ms`;
}

export function percent(value, places = 0) {
  if (!known(value)) return DASH;
  // A share just under 100 % must not read as all.
  const shown = (value * 100).toFixed(places);
  if (value < 1 && Number(shown) === 100) return places ? ">99.9 %" : ">99 %";
  return `${shown} %`;
}

/** Epoch seconds or ISO 8601 to epoch milliseconds; null when it is neither. */
export function moment(value) {
  if (known(value)) return value * 1000;
  const parsed = typeof value === "string" ? Date.parse(value) : NaN;
  return Number.isNaN(parsed) ? null : parsed;
}

export function timeOfDay(value) {
  const at = moment(value);
  return at === null ? DASH : clock.format(at);
}

export function seconds(value) {
  if (!known(value)) return DASH;
  if (value < 90) return `${Math.max(0, Math.round(value))} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

export const words = (name) => String(name).replaceAll("_", " ");
