// The page's address holds everything that is shown: `#/VIEW?filters and choices`. What has its default is left out.
import { useEffect, useState } from "preact/hooks";

export const VIEWS = ["trajectories", "compare", "curves"] as const;
export type View = (typeof VIEWS)[number];

/** Filters, as the server knows them (thinkimg/viewer/selection.py). */
export const FILTERS = [
  "q", "run", "stage", "model", "mode", "step", "kind", "outcome", "tool", "error", "status", "min", "max", "subject",
] as const;
export type Filter = (typeof FILTERS)[number];
export type Choices = Record<string, string>;

export interface Address {
  view: View;
  choices: Choices;
}

export function parse(hash: string): Address {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const view = VIEWS.find((one) => one === path) ?? "trajectories";
  return { view, choices: Object.fromEntries(new URLSearchParams(query)) };
}

export function format({ view, choices }: Address): string {
  const kept = Object.entries(choices).filter(([, value]) => value !== "");
  const query = new URLSearchParams(kept).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

/** The address of the same view with some choices changed; an empty string takes one away. */
export function changed(address: Address, changes: Choices, view: View = address.view): string {
  return format({ view, choices: { ...address.choices, ...changes } });
}

/** Go there. Steps within one view replace the entry of the history, so that Back leads out of it. */
export function go(hash: string, replace = false): void {
  if (hash === location.hash) return;
  if (replace) {
    history.replaceState(null, "", hash);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = hash;
  }
}

export function useAddress(): Address {
  const [address, set] = useState(() => parse(location.hash));
  useEffect(() => {
    const follow = () => set(parse(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return address;
}

/** Only the filters and the order, which choose the list. */
export function selectionOf(choices: Choices): Choices {
  const names = [...FILTERS, "sort"].filter((name) => choices[name]);
  return Object.fromEntries(names.map((name) => [name, choices[name]!]));
}
