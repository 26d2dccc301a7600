// One trajectory, turn by turn; or two on the same question side by side.
import type { ComponentChildren } from "preact";
import { useContext, useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { type Address, changed, format, go, selectionOf } from "./address";
import { type Block, type Call, type Picture, type Result, type Row, type Shown, type Trajectory, type Turn, StoreContext } from "./data";
import { Fact, Sign, Trouble, useKeys, useLoaded } from "./parts";
import { type Asked, DEFAULT_LAYERS, Figure, LAYERS, LooksContext } from "./picture";
import { Tokens } from "./tokens";
import { duration, ENDED, figure, origin, outcome, plural, pretty, short, spaced, thousands } from "./words";

const MOST_OTHERS = 12;

interface Properties {
  address: Address;
  left: string;
  right?: string;
  /** Shown where a phone leads back to the list. */
  back: string;
  children?: ComponentChildren;
}

/** The pane with one trajectory or two. */
export function Reader({ address, left, right, back, children }: Properties) {
  const store = useContext(StoreContext);
  const keys = right ? [left, right] : [left];
  const { value, error } = useLoaded(() => Promise.all(keys.map((key) => store.trajectory(key))), [left, right]);
  const pane = useRef<HTMLElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const loaded = value?.map((shown) => shown.row.key).join("\0");
  const isThere = loaded === keys.join("\0");
  const longest = Math.max(0, ...(value ?? []).map((shown) => shown.record.turns.length));
  const turn = Number(address.choices.turn ?? 0);

  useLayoutEffect(() => {
    if (isThere && !turn) pane.current!.scrollTop = 0;
  }, [loaded]);
  useEffect(() => {
    if (!isThere || !turn) return;
    for (const column of pane.current!.querySelectorAll(".column")) {
      const element = column.querySelector(`[data-turn="${turn}"]`) ?? column.querySelector(".turn:last-child");
      element?.scrollIntoView({ block: "start" });
    }
  }, [turn, isThere, loaded]);

  const step = (by: number) => {
    if (longest) go(changed(address, { turn: String(Math.min(longest, Math.max(1, turn + by))) }), true);
  };
  const withTokens = address.choices.tokens === "1";
  const toggleTokens = () => go(changed(address, { tokens: withTokens ? "" : "1" }), true);
  useKeys({
    ArrowRight: () => step(1),
    ArrowLeft: () => step(-1),
    t: toggleTokens,
    Enter: () => heading.current?.focus(),
    Escape: () => go(right && address.view === "trajectories" ? changed(address, { vs: "" }) : back),
  });

  const tools = (
    <div class="tools">
      <a class="back" href={back}>List</a>
      <span class="buttons" role="group" aria-label="Turns">
        <button type="button" onClick={() => step(-1)} disabled={turn <= 1} aria-label="Previous turn">←</button>
        <span class="at">{turn ? `Turn ${turn} of ${longest}` : plural(longest, "turn")}</span>
        <button type="button" onClick={() => step(1)} disabled={turn >= longest} aria-label="Next turn">→</button>
      </span>
      <LayerButtons address={address} />
      <button type="button" aria-pressed={withTokens} onClick={toggleTokens}>Tokens</button>
      {right && address.view === "trajectories" && <a class="button" href={changed(address, { vs: "" })}>End comparison</a>}
    </div>
  );
  return (
    <section class="reader" ref={pane} tabIndex={-1} aria-label="Trajectory" aria-busy={!isThere && !error}>
      {tools}
      {children}
      {error ? <Trouble error={error} /> : !value ? <p class="note">Loading …</p> : (
        <>
          <h2 tabIndex={-1} ref={heading}>{value[0]!.record.question}</h2>
          <div class={right ? "columns two" : "columns"}>
            {value.map((shown, number) => (
              <Column key={shown.row.key} shown={shown} address={address} withTokens={withTokens} turn={turn} compared={Boolean(right)}
                others={number === 0 && address.view === "trajectories" && !right} />
            ))}
          </div>
        </>
      )}
    </section>
  );
}

function LayerButtons({ address }: { address: Address }) {
  const { layers } = useContext(LooksContext);
  const toggled = (layer: string) => LAYERS.filter((one) => (one === layer) !== layers.has(one)).join(",");
  return (
    <span class="buttons" role="group" aria-label="Drawn over pictures">
      {LAYERS.map((layer) => (
        <button type="button" key={layer} aria-pressed={layers.has(layer)}
          onClick={() => go(changed(address, { layers: toggled(layer) === DEFAULT_LAYERS ? "" : toggled(layer) || "none" }), true)}>
          {layer[0]!.toUpperCase() + layer.slice(1)}
        </button>
      ))}
    </span>
  );
}

interface ColumnProperties {
  shown: Shown;
  address: Address;
  withTokens: boolean;
  turn: number;
  compared: boolean;
  others: boolean;
}

function Column({ shown, address, withTokens, turn, compared, others }: ColumnProperties) {
  const { row, record, related } = shown;
  const calls = new Map(record.turns.flatMap((one) => one.blocks).filter((block) => block.type === "tool_call").map((call) => [call.id, call]));
  const rewards = Object.entries(record.rewards);
  return (
    <article class="column" aria-label={origin(row, true)}>
      <p class="origin">
        {compared ? <a href={format({ view: "trajectories", choices: { t: row.key } })}>{origin(row)}</a> : origin(row)}
        <span>{[row.run, row.stage === row.model ? "" : row.stage, row.kind].filter(Boolean).join(" · ")}</span>
      </p>
      <dl class="facts">
        <Fact name="Answer" class={`answer ${outcome(record.correct)}`}><Sign correct={record.correct} /> {record.answer ?? "none"}</Fact>
        <Fact name="Reference">{record.reference ?? "–"}</Fact>
        {row.reward !== null && <Fact name="Reward">{figure(row.reward)}</Fact>}
        {rewards.length > 1 && rewards.filter(([name]) => name !== "total").map(([name, value]) => (
          <Fact key={name} name={name} class="part">{value === null ? "–" : figure(value)}</Fact>
        ))}
        <Fact name="Ended">{ENDED[record.status] ?? record.status}</Fact>
        <Fact name="Calls">{row.calls}</Fact>
        {row.tokens !== null && <Fact name="Tokens">{thousands(row.tokens)}</Fact>}
        <Fact name="Time">{duration(record.seconds)}</Fact>
      </dl>
      {others && <Others row={row} related={related} address={address} />}
      <ol class="turns">
        {record.turns.map((one, index) => (
          <TurnItem key={index} number={index + 1} turn={one} record={record} calls={calls} isCurrent={turn === index + 1} withTokens={withTokens}
            place={changed(address, { turn: String(index + 1) })} />
        ))}
      </ol>
      <details class="more">
        <summary>Record</summary>
        <dl class="record">
          <dt>id</dt><dd>{record.id}</dd>
          {Object.entries(record.meta).map(([name, value]) => [<dt key={name}>{name}</dt>, <dd key={`${name}=`}>{pretty(value)}</dd>])}
        </dl>
      </details>
    </article>
  );
}

/** Of other models and attempts on the same question: each opens beside this one. */
function Others({ row, related, address }: { row: Row; related: Row[]; address: Address }) {
  if (!related.length) return null;
  const isGroup = (other: Row) => other.run === row.run && other.stage === row.stage && other.mode === row.mode && other.step === row.step && other.model === row.model;
  const rank = (other: Row) => (isGroup(other) ? 2 : other.mode === "training" ? 1 : 0) - (other.mode === row.mode ? 0.5 : 0);
  // One of each source first: what there is to compare with, before more of the same.
  const seen = new Set<string>();
  const again = new Map(related.map((other) => [other, seen.size === seen.add(origin(other, true)).size ? 10 : 0]));
  const ordered = related.toSorted((a, b) => rank(a) + again.get(a)! - rank(b) - again.get(b)!);
  const link = (other: Row) => (
    <li key={other.key}>
      <a href={changed(address, { vs: other.key, turn: "" })}>
        <Sign correct={other.correct} /> {isGroup(other) ? "same group" : origin(other, other.run !== row.run)} <span>{short(other.answer ?? "no answer", 24)}</span>
      </a>
    </li>
  );
  return (
    <nav class="others" aria-label="The same question: compare with">
      <h3>Same question, compare with</h3>
      <ul>{ordered.slice(0, MOST_OTHERS).map(link)}</ul>
      {ordered.length > MOST_OTHERS && (
        <p><a href={format({ view: "trajectories", choices: { ...selectionOf({ subject: row.subject }), t: row.key } })}>All {thousands(ordered.length + 1)} on this question</a></p>
      )}
    </nav>
  );
}

export interface TurnProperties {
  number: number;
  turn: Turn;
  record: Trajectory;
  calls: Map<string, Call>;
  isCurrent: boolean;
  withTokens: boolean;
  place: string;
  /** Who calls the tools, where it is no model. */
  caller?: string;
}

const ROLES = { system: "Instructions", user: "Question", assistant: "Model", tool: "Tools" };

export function TurnItem({ number, turn, record, calls, isCurrent, withTokens, place, caller = ROLES.assistant }: TurnProperties) {
  const who = turn.role === "assistant" ? caller : ROLES[turn.role];
  return (
    <li class={`turn ${turn.role}${isCurrent ? " current" : ""}`} data-turn={number} aria-current={isCurrent ? "step" : undefined}>
      <div class="who">
        <a href={place} aria-label={`Turn ${number}, ${who}`}>{number}</a>
        <b>{who}</b>
        {turn.seconds && turn.seconds >= 0.0005 ? <span>{duration(turn.seconds)}</span> : null}
        {turn.finish === "length" && <span class="badge warn">cut off</span>}
      </div>
      <div class="said">
        {piecesOf(turn).map((piece, index) => (
          <div key={index} class={isFault(piece, turn) ? "piece failed" : "piece"}>
            <div class="words">
              {piece.blocks.map((block, at) => <BlockItem key={at} block={block} role={turn.role} />)}
            </div>
            <Pictures piece={piece} record={record} calls={calls} role={turn.role} />
          </div>
        ))}
        {withTokens && <Tokens turn={turn} pieces={record.pieces} />}
      </div>
    </li>
  );
}

interface Piece {
  blocks: Block[];
  handles: string[];
  result?: Result;
}

/** A result and the pictures that follow it belong together; so does all before the first result. */
function piecesOf(turn: Turn): Piece[] {
  const pieces: Piece[] = [{ blocks: [], handles: [] }];
  for (const block of turn.blocks) {
    if (block.type === "tool_result") pieces.push({ blocks: [block], handles: [], result: block });
    else if (block.type === "image") pieces.at(-1)!.handles.push(block.handle);
    else pieces.at(-1)!.blocks.push(block);
  }
  return pieces.filter((piece) => piece.blocks.length || piece.handles.length);
}

/** A result that is an error, or the words that answer a malformed reply. */
function isFault(piece: Piece, turn: Turn): boolean {
  const first = piece.blocks[0];
  return Boolean(piece.result?.error) || (turn.role === "tool" && first?.type === "text" && first.text.startsWith("ERROR"));
}

function Pictures({ piece, record, calls, role }: { piece: Piece; record: Trajectory; calls: Map<string, Call>; role: Turn["role"] }) {
  const figures: ComponentChildren[] = [];
  const add = (handle: string, caption: string, more: { overlay?: Result["overlay"]; asked?: Asked; asksFor?: [number, number][] } = {}) => {
    const picture: Picture | undefined = record.images[handle];
    if (picture) figures.push(<Figure key={figures.length} picture={picture} handle={handle} caption={caption} {...more} />);
  };
  if (piece.result) {
    const { overlay, call_id } = piece.result;
    const call = calls.get(call_id);
    const { asked, asksFor } = askedIn(call);
    const found = overlay.boxes.length + overlay.points.length + (overlay.masks?.length ?? 0);
    const looked = lookedAt(call, record);
    if (looked && found + asked.length + asksFor.length) add(looked, found ? "what it found" : "where it looked", { overlay, asked, asksFor });
  }
  for (const handle of piece.handles) add(handle, role === "user" ? "the picture" : "returned");
  return figures.length ? <div class="pictures">{figures}</div> : null;
}

function lookedAt(call: Call | undefined, record: Trajectory): string | undefined {
  const named = Object.values(call?.arguments ?? {}).filter((value): value is string => typeof value === "string" && value in record.images);
  const image = call?.arguments.image;
  return typeof image === "string" && image in record.images ? image : named[0];
}

const numbers = (value: unknown, length: number): value is number[] =>
  Array.isArray(value) && value.length === length && value.every((one) => Number.isFinite(one));

/** Boxes and points in a call's arguments, alone or in a list. */
function askedIn(call: Call | undefined): { asked: Asked; asksFor: [number, number][] } {
  const values = Object.entries(call?.arguments ?? {});
  const all = (pattern: RegExp, length: number) =>
    values.filter(([name]) => pattern.test(name)).flatMap(([, value]) => (numbers(value, length) ? [value] : Array.isArray(value) ? value.filter((one) => numbers(one, length)) : []));
  return { asked: all(/^(box|boxes|region)$/, 4) as Asked, asksFor: all(/^points?$/, 2) as [number, number][] };
}

function BlockItem({ block, role }: { block: Block; role: Turn["role"] }) {
  if (block.type === "tool_call") return <CallItem call={block} />;
  if (block.type === "tool_result") return <ResultItem result={block} />;
  if (block.type === "image") return null;
  if (role === "system") return <Raw title="Instructions and tool schemas" text={block.text} />;
  // The words between results: the line breaks in them are the format's.
  if (role === "tool" && !block.text.startsWith("ERROR")) return <p class="text">{block.text.trim().replace(/\s+/g, " ")}</p>;
  if (role !== "assistant") return <p class="text">{block.text.trim()}</p>;
  const thought = thoughtOf(block.text);
  return (
    <>
      {thought && <p class="text">{thought}</p>}
      {thought !== block.text.trim() && <Raw title="As the model wrote it" text={block.text} />}
    </>
  );
}

function CallItem({ call }: { call: Call }) {
  return (
    <div class="call">
      <b>{call.name}</b>
      <dl>{Object.entries(call.arguments).map(([name, value]) => [<dt key={name}>{name}</dt>, <dd key={`${name}=`}>{pretty(value)}</dd>])}</dl>
    </div>
  );
}

function ResultItem({ result }: { result: Result }) {
  return (
    <div class="result">
      <header>
        <b>{result.name}</b> <span>{result.cached ? "from the cache" : duration(result.seconds)}</span>
        {result.error && <span class="badge bad">{spaced(result.error)}</span>}
      </header>
      {result.text && <p class="output" tabIndex={result.text.length > 800 ? 0 : undefined}>{result.text}</p>}
      {Object.keys(result.data ?? {}).length > 0 && <Raw title="As data" text={JSON.stringify(result.data, null, 1)} />}
    </div>
  );
}

function Raw({ title, text }: { title: string; text: string }) {
  return (
    <details class="more">
      <summary>{title}</summary>
      <pre tabIndex={0}>{text}</pre>
    </details>
  );
}

/** What a model wrote beside its calls: the `thought` of OpenThinkIMG's JSON, or the text around <tool_call> blocks. */
export function thoughtOf(text: string): string {
  try {
    const parsed = JSON.parse(text);
    if (typeof parsed?.thought === "string") return parsed.thought;
  } catch {
    const partial = /^\s*\{\s*"thought"\s*:\s*"((?:[^"\\]|\\.)*)"/s.exec(text); // cut off behind its thought, or no JSON after it
    if (partial) return unescaped(partial[1]!);
  }
  return text.replace(/<tool_call>[\s\S]*?(<\/tool_call>|$)/g, "").trim();
}

/** The text of a JSON string as a model writes it: with lines' ends, tabs and LaTeX's backslashes in it. */
function unescaped(text: string): string {
  const sound = text.replace(/\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|\\/g, (found) => (found === "\\" ? "\\\\" : found)).replace(/[\u0000-\u001f]/g, (letter) => JSON.stringify(letter).slice(1, -1));
  return JSON.parse(`"${sound}"`);
}
