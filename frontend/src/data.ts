// What the page reads, and the two places it comes from: the server, or an exported file.
import { createContext } from "preact";

export interface Row {
  key: string;
  run: string;
  stage: string;
  model: string;
  mode: string;
  step: number | null;
  kind: string;
  question: string;
  answer: string | null;
  reference: string | null;
  status: string;
  correct: boolean | null;
  reward: number | null;
  rounds: number;
  calls: number;
  tools: string;
  failed: number;
  tokens: number | null;
  seconds: number;
  subject: string;
}

export interface Overlay {
  boxes: [number, number, number, number, string][]; // percent: left, top, right, bottom, and a name
  points: [number, number, string][];
  masks?: string[]; // data URIs, each as large as the picture
}

export type Block =
  | { type: "text"; text: string }
  | { type: "image"; handle: string }
  | { type: "tool_call"; id: string; name: string; arguments: Record<string, unknown> }
  | {
      type: "tool_result"; call_id: string; name: string; text: string; data: Record<string, unknown>; overlay: Overlay;
      error: string | null; seconds: number; cached: boolean;
    };
export type Call = Extract<Block, { type: "tool_call" }>;
export type Result = Extract<Block, { type: "tool_result" }>;

export interface Turn {
  role: "system" | "user" | "assistant" | "tool";
  seconds: number | null;
  finish: "stop" | "length" | null;
  blocks: Block[];
  tokens?: number[];
  mask?: string; // "1" where the model sampled the token
  logprobs?: (number | null)[] | null;
}

export interface Picture {
  sha: string;
  width: number;
  height: number;
  src: string | null; // null: not kept
}

export interface Trajectory {
  id: string;
  question: string;
  reference: string | null;
  answer: string | null;
  status: string;
  correct: boolean | null;
  rewards: Record<string, number | null>;
  seconds: number | null;
  meta: Record<string, unknown>;
  images: Record<string, Picture>;
  turns: Turn[];
  pieces?: Record<string, string>; // text of the token ids
}

export interface Shown {
  row: Row;
  record: Trajectory;
  related: Row[];
}

export interface Source {
  run: string;
  stage: string;
  model: string;
  mode: string;
  count: number;
}
export interface Count {
  name: string;
  count: number;
}
export interface Facets {
  sources: Source[];
  total: number;
  tools: Count[];
  errors: Count[];
  statuses: Count[];
  kinds: Count[];
  steps: number[];
  reward: [number | null, number | null];
}
export interface State {
  version: number;
  working: boolean;
  read: number;
  runs: string[];
  facets: Facets;
  problems: { count: number; first: string[] };
}
export interface Page<T> {
  total: number;
  offset: number;
  rows: T[];
  found?: number | null;
}
export interface Pair {
  left: Row;
  right: Row;
}
export interface Pairs extends Page<Pair> {
  counts: Record<string, number>;
}
export interface Curve {
  run: string;
  stage: string;
  every: number;
  steps: number[];
  values: Record<string, (number | null)[]>;
  tools: Record<string, (number | null)[]>;
  chains: Record<string, (number | null)[]>;
  errors: Record<string, (number | null)[]>;
}

export interface Store {
  /** Whether the files can still grow. */
  live: boolean;
  state(): Promise<State>;
  page(selection: Record<string, string>, offset: number, limit: number, find?: string): Promise<Page<Row>>;
  trajectory(key: string): Promise<Shown>;
  pairs(left: Source, right: Source, outcome: string, offset: number, limit: number): Promise<Pairs>;
  curves(): Promise<Curve[]>;
  picture(picture: Picture): string | null;
  exportAddress(selection: Record<string, string>): string | null;
}

export const StoreContext = createContext<Store>(undefined as unknown as Store);

const SIDES = ["run", "stage", "model", "mode"] as const;

export class ServerStore implements Store {
  live = true;

  state = () => this.get<State>("api/state");
  curves = () => this.get<Curve[]>("api/curves");
  trajectory = (key: string) => this.get<Shown>(`api/trajectories/${encodeURIComponent(key)}`);
  picture = (picture: Picture) => picture.src;
  exportAddress = (selection: Record<string, string>) => `api/export?${new URLSearchParams(selection)}`;

  page(selection: Record<string, string>, offset: number, limit: number, find?: string): Promise<Page<Row>> {
    const query = new URLSearchParams({ ...selection, offset: `${offset}`, limit: `${limit}`, ...(find && { find }) });
    return this.get(`api/trajectories?${query}`);
  }

  pairs(left: Source, right: Source, outcome: string, offset: number, limit: number): Promise<Pairs> {
    const query = new URLSearchParams({ outcome, offset: `${offset}`, limit: `${limit}` });
    for (const name of SIDES) {
      query.set(`left.${name}`, left[name]);
      query.set(`right.${name}`, right[name]);
    }
    return this.get(`api/pairs?${query}`);
  }

  private async get<T>(path: string): Promise<T> {
    const response = await fetch(path, { headers: { accept: "application/json" } }).catch(() => {
      throw new Error("The server does not answer. Is `thinkimg view` still running?");
    });
    const body = await response.text();
    if (response.ok) return JSON.parse(body) as T;
    let message = body;
    try {
      message = JSON.parse(body).error;
    } catch {
      // not JSON: the text itself says it
    }
    throw new Error(message || `The server answered ${response.status}.`);
  }
}

export interface Exported {
  runs: string[];
  selection: Record<string, string>;
  rows: Row[];
  records: Record<string, Trajectory>;
  pictures: Record<string, string | null>;
  curves: Curve[];
}

/** The same answers from what an exported file holds. */
export class FileStore implements Store {
  live = false;
  private words = new Map<string, string>();

  constructor(private data: Exported) {}

  picture = (picture: Picture) => this.data.pictures[picture.sha] ?? null;
  exportAddress = () => null;
  curves = async () => this.data.curves;

  async state(): Promise<State> {
    const { rows, records } = this.data;
    const rewards = rows.flatMap((row) => row.reward ?? []);
    const sources = new Map<string, Source>();
    for (const { run, stage, model, mode } of rows) {
      const key = [run, stage, model, mode].join("\0");
      const source = sources.get(key) ?? { run, stage, model, mode, count: 0 };
      source.count += 1;
      sources.set(key, source);
    }
    return {
      version: 0, working: false, read: 1, runs: this.data.runs, problems: { count: 0, first: [] },
      facets: {
        sources: [...sources.values()],
        total: rows.length,
        tools: count(rows.flatMap((row) => [...new Set(results(records[row.key]!).map((result) => result.name))])),
        errors: count(rows.flatMap((row) => faults(records[row.key]!))),
        statuses: count(rows.map((row) => row.status)),
        kinds: count(rows.map((row) => row.kind).filter(Boolean)),
        steps: [...new Set(rows.flatMap((row) => row.step ?? []))].sort((a, b) => a - b),
        reward: rewards.length ? [Math.min(...rewards), Math.max(...rewards)] : [null, null],
      },
    };
  }

  async page(selection: Record<string, string>, offset: number, limit: number, find?: string): Promise<Page<Row>> {
    const found = sorted(this.data.rows.filter((row) => this.matches(row, selection)), selection.sort ?? "written");
    const position = found.findIndex((row) => row.key === find);
    return {
      total: found.length, offset, rows: found.slice(offset, offset + limit), found: position < 0 ? null : position,
    };
  }

  async trajectory(key: string): Promise<Shown> {
    const row = this.data.rows.find((one) => one.key === key);
    if (!row) throw new Error("This trajectory is not in the file.");
    const related = this.data.rows.filter((one) => one !== row && one.subject === row.subject);
    return { row, record: this.data.records[key]!, related };
  }

  async pairs(left: Source, right: Source, outcome: string, offset: number, limit: number): Promise<Pairs> {
    const firsts = (source: Source) => {
      const found = new Map<string, Row>();
      for (const row of this.data.rows) {
        if (SIDES.every((name) => row[name] === source[name]) && !found.has(row.subject)) found.set(row.subject, row);
      }
      return found;
    };
    const others = firsts(right);
    const all = [...firsts(left).values()].flatMap((row) => {
      const other = others.get(row.subject);
      return other ? [{ left: row, right: other, outcome: outcomeOf(row, other) }] : [];
    });
    const counts: Record<string, number> = { left: 0, right: 0, both: 0, neither: 0 };
    for (const pair of all) counts[pair.outcome]! += 1;
    const shown = outcome ? all.filter((pair) => pair.outcome === outcome) : all;
    return { total: shown.length, offset, counts, rows: shown.slice(offset, offset + limit) };
  }

  private matches(row: Row, wanted: Record<string, string>): boolean {
    const record = this.data.records[row.key]!;
    const [low, high = low] = (wanted.step ?? "").split(/\s*(?:-|–|\.\.)\s*/).map(Number);
    return (
      (["run", "stage", "model", "mode", "kind", "status", "subject"] as const).every((name) => !wanted[name] || row[name] === wanted[name]) &&
      (!wanted.step || (row.step !== null && row.step >= low! && row.step <= high!)) &&
      (!wanted.outcome || { right: row.correct === true, wrong: row.correct === false, open: row.correct === null }[wanted.outcome]!) &&
      (!wanted.tool || (wanted.tool === "-" ? row.calls === 0 : results(record).some((one) => one.name === wanted.tool))) &&
      (!wanted.error || (wanted.error === "any" ? row.failed > 0 : wanted.error === "none" ? !row.failed : faults(record).includes(wanted.error))) &&
      (!wanted.min || (row.reward !== null && row.reward >= Number(wanted.min))) &&
      (!wanted.max || (row.reward !== null && row.reward <= Number(wanted.max))) &&
      (wanted.q?.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? []).every((word) =>
        new RegExp(`(?<![\\p{L}\\p{N}_])${word}`, "u").test(this.text(row.key)))
    );
  }

  private text(key: string): string {
    let text = this.words.get(key);
    if (text === undefined) {
      const { id, question, answer, reference, turns } = this.data.records[key]!;
      const said = turns.filter((turn) => turn.role === "assistant" || turn.role === "tool").flatMap((turn) => turn.blocks);
      text = [id, question, answer, reference, ...said.map((block) => ("text" in block ? block.text : ""))].join("\n").toLowerCase();
      this.words.set(key, text);
    }
    return text;
  }
}

export function results(record: Trajectory): Result[] {
  return record.turns.flatMap((turn) => turn.blocks).filter((block) => block.type === "tool_result");
}

function faults(record: Trajectory): string[] {
  const kinds = new Set(results(record).flatMap((result) => result.error ?? []));
  if (record.status === "infrastructure") kinds.add("infrastructure");
  if (record.meta.malformed) kinds.add("malformed_call");
  return [...kinds];
}

function outcomeOf(left: Row, right: Row): string {
  if (left.correct) return right.correct ? "both" : "left";
  return right.correct ? "right" : "neither";
}

function count(names: string[]): Count[] {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].map(([name, number]) => ({ name, count: number })).sort((a, b) => b.count - a.count);
}

function sorted(rows: Row[], sort: string): Row[] {
  if (sort === "written") return rows;
  const column = sort.replace("-", "") as "reward" | "calls" | "tokens" | "seconds" | "step";
  const sign = sort.startsWith("-") ? -1 : 1;
  const value = (row: Row) => row[column];
  return rows.toSorted((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return Number(x === null) - Number(y === null);
    return sign * (x - y);
  });
}
