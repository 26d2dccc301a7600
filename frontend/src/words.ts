// How figures, sources and outcomes are written.
import type { Row, Source } from "./data";

export const ENDED: Record<string, string> = {
  answered: "answered", rounds: "too many rounds", tokens: "context full", refused: "refused by the endpoint",
  time: "out of time", infrastructure: "infrastructure failed", running: "not finished",
};
const MODES: Record<string, string> = {
  greedy: "greedy", sampled: "sampled", training: "while training", examples: "examples",
};
/** How answers were asked for; `control-grey-all` with changed pictures: what took their place, and for whom. */
export function mode(name: string): string {
  const [control, kind, scope] = name.split("-");
  return control === "control" && scope ? `pictures changed (${kind}, ${scope})` : (MODES[name] ?? name);
}

export const figure = (value: number, digits = 3) => String(Number(value.toFixed(digits)));
export const thousands = (value: number) => value.toLocaleString("en");
export const plural = (count: number, word: string) => `${thousands(count)} ${word}${count === 1 ? "" : "s"}`;
export const spaced = (text: string) => text.replaceAll("_", " ");
export const short = (text: string, most: number) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
export const pretty = (value: unknown) =>
  typeof value === "string" ? value : (JSON.stringify(value, null, 1) ?? "").replace(/\n\s*/g, " ");

export function duration(seconds: number | null): string {
  if (seconds === null) return "–";
  if (seconds < 0.0005) return "0 ms";
  return seconds < 1 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`;
}

/** The model, and where it was: `v-toolrl · greedy`, `v-toolrl · step 40`. */
export function origin(row: Row | Source, withRun = false): string {
  const parts = [withRun ? row.run : "", row.model];
  if (row.stage !== row.model && ["training", "examples", ""].includes(row.mode)) parts.push(row.stage);
  const step = "step" in row ? row.step : null;
  parts.push(step === null ? mode(row.mode) : `step ${step}`);
  return parts.filter(Boolean).join(" · ");
}

export const OUTCOMES = {
  right: { sign: "✓", word: "right" },
  wrong: { sign: "✗", word: "wrong" },
  open: { sign: "–", word: "not scored" },
};
export type Outcome = keyof typeof OUTCOMES;
export const outcome = (correct: boolean | null): Outcome => (correct === null ? "open" : correct ? "right" : "wrong");
