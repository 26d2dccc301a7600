// The filters above a list. Each is part of the page's address.
import { useEffect, useRef, useState } from "preact/hooks";
import { type Address, changed, type Choices, FILTERS, go } from "./address";
import type { Count, Facets } from "./data";
import { ENDED, figure, mode, spaced, thousands } from "./words";

const SORTS = {
  written: "As written", reward: "Reward, lowest first", "-reward": "Reward, highest first", "-calls": "Most calls",
  calls: "Fewest calls", "-tokens": "Longest in tokens", tokens: "Shortest in tokens", "-seconds": "Slowest", seconds: "Fastest", step: "Step",
};
const PAUSE = 250; // ms without typing before a search runs

export function Filters({ address, facets }: { address: Address; facets: Facets }) {
  const { choices } = address;
  const set = (changes: Choices) => go(changed(address, { ...changes, turn: "" }), true);
  const active = FILTERS.filter((name) => choices[name]).length;
  const cleared = Object.fromEntries([...FILTERS, "sort"].map((name) => [name, ""]));
  const names = (field: "run" | "stage" | "model" | "mode"): Count[] => {
    const counts = new Map<string, number>();
    for (const source of facets.sources) if (source[field]) counts.set(source[field], (counts.get(source[field]) ?? 0) + source.count);
    return [...counts].map(([name, count]) => ({ name, count }));
  };
  const select = (name: string, label: string, options: Count[], any = "All", extra: [string, string][] = [], word = (text: string) => text) =>
    (options.length + extra.length > 1 || choices[name]) && (
      <label key={name}>
        <span>{label}</span>
        <select name={name} value={choices[name] ?? ""} onChange={(event) => set({ [name]: event.currentTarget.value })}>
          <option value="">{any}</option>
          {extra.map(([value, text]) => <option key={value} value={value}>{text}</option>)}
          {options.map(({ name: value, count }) => <option key={value} value={value}>{word(value)} ({thousands(count)})</option>)}
        </select>
      </label>
    );
  const [low, high] = facets.reward;
  const [narrow, setNarrow] = useState(() => matchMedia("(max-width: 820px)").matches);
  useEffect(() => {
    const query = matchMedia("(max-width: 820px)");
    const follow = () => setNarrow(query.matches);
    query.addEventListener("change", follow);
    return () => query.removeEventListener("change", follow);
  }, []);
  const controls = (
    <div class="controls">
      {select("run", "Run", names("run"))}
      {select("model", "Model", names("model"))}
      {select("stage", "Stage", names("stage"))}
      {select("mode", "Mode", names("mode"), "All", [], mode)}
      {facets.steps.length > 0 && <Typed name="step" label="Step" value={choices.step ?? ""} set={set} pattern="\s*\d+\s*((-|–|\.\.)\s*\d+\s*)?" hint="40 or 10-80" list={facets.steps.map(String)} />}
      {select("outcome", "Outcome", [], "All", [["right", "Right"], ["wrong", "Wrong"], ["open", "Not scored"]])}
      {select("tool", "Tool", facets.tools, "Any or none", [["-", "No tool"]])}
      {select("error", "Error", facets.errors, "All", [["any", "With an error"], ["none", "Without"]], spaced)}
      {select("status", "Ended", facets.statuses, "All", [], (status) => ENDED[status] ?? status)}
      {select("kind", "Question", facets.kinds, "All kinds")}
      {low !== null && high !== null && (
        <fieldset>
          <legend>Reward</legend>
          <Typed name="min" label="Reward, at least" value={choices.min ?? ""} set={set} pattern="-?\d*\.?\d+" hint={figure(low, 2)} numeric />
          <Typed name="max" label="Reward, at most" value={choices.max ?? ""} set={set} pattern="-?\d*\.?\d+" hint={figure(high, 2)} numeric />
        </fieldset>
      )}
      <label>
        <span>Order</span>
        <select name="sort" value={choices.sort ?? "written"} onChange={(event) => set({ sort: event.currentTarget.value === "written" ? "" : event.currentTarget.value })}>
          {Object.entries(SORTS).map(([value, text]) => <option key={value} value={value}>{text}</option>)}
        </select>
      </label>
      <button type="button" class="clear" disabled={!active && !choices.sort} onClick={() => set(cleared)}>Clear</button>
    </div>
  );
  return (
    <form class="filters" role="search" aria-label="Filter trajectories" onSubmit={(event) => event.preventDefault()}>
      <Typed name="q" label="Search" value={choices.q ?? ""} set={set} hint="Search words, answers, results" search />
      {narrow ? <details class="fold"><summary>Filters{active ? ` (${active})` : ""}</summary>{controls}</details> : controls}
      {choices.subject && <button type="button" class="chip" onClick={() => set({ subject: "" })}>One question only ×</button>}
    </form>
  );
}

interface TypedProperties {
  name: string;
  label: string;
  value: string;
  set(changes: Choices): void;
  hint: string;
  pattern?: string;
  list?: string[];
  numeric?: boolean;
  search?: boolean;
}

/** A field that takes effect a moment after the last key, and only if what it holds is right. */
function Typed({ name, label, value, set, hint, pattern, list, numeric, search }: TypedProperties) {
  const input = useRef<HTMLInputElement>(null);
  const timer = useRef(0);
  const latest = useRef(set);
  latest.current = set;
  useEffect(() => {
    if (document.activeElement !== input.current || value === "") input.current!.value = value;
  }, [value]);
  const apply = () => {
    if (!timer.current) return; // nothing was typed since
    clearTimeout(timer.current);
    timer.current = 0;
    if (input.current?.checkValidity()) latest.current({ [name]: input.current.value.trim() });
  };
  const wait = () => {
    clearTimeout(timer.current);
    timer.current = setTimeout(apply, PAUSE);
  };
  return (
    <label class={name}>
      <span>{label}</span>
      <input ref={input} name={name} type={search ? "search" : "text"} inputMode={numeric ? "decimal" : undefined} placeholder={hint} pattern={pattern}
        autocomplete="off" spellcheck={false} list={list ? `${name}-list` : undefined} onInput={wait} onChange={apply}
        onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()} />
      {list && <datalist id={`${name}-list`}>{list.map((one) => <option key={one} value={one} />)}</datalist>}
    </label>
  );
}
