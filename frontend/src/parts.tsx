// Small pieces that several views share.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { outcome, OUTCOMES } from "./words";

export function Sign({ correct }: { correct: boolean | null }) {
  const kind = outcome(correct);
  return <span class={`sign ${kind}`} role="img" aria-label={OUTCOMES[kind].word}>{OUTCOMES[kind].sign}</span>;
}

export function Fact({ name, children, class: kind }: { name: string; children: ComponentChildren; class?: string }) {
  return <div class={kind}><dt>{name}</dt><dd>{children}</dd></div>;
}

export function Trouble({ error }: { error: unknown }) {
  return <p class="trouble" role="alert">{error instanceof Error ? error.message : String(error)}</p>;
}

/** A promise's value; the last one stays while the next is under way. */
export function useLoaded<T>(load: () => Promise<T>, dependencies: unknown[]): { value?: T; error?: unknown } {
  const [result, set] = useState<{ value?: T; error?: unknown }>({});
  const turn = useRef(0);
  useEffect(() => {
    const mine = ++turn.current;
    load().then(
      (value) => mine === turn.current && set({ value }),
      (error) => mine === turn.current && set({ error }),
    );
  }, dependencies);
  return result;
}

/** Keys that work wherever the reader is, but not while typing or in a dialogue. */
export function useKeys(actions: Record<string, (event: KeyboardEvent) => void>): void {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      if (target.matches("input, select, textarea, [data-keys]")) return;
      const action = latest.current[event.key];
      if (!action) return;
      event.preventDefault();
      action(event);
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
}
