// A list of any length of which only what is seen is loaded and drawn. Rows have one height.
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Page } from "./data";

const CHUNK = 100; // rows of one request
const AROUND = 6; // rows drawn beyond the edges
const MOST_PIXELS = 12_000_000; // browsers draw no higher element; a longer list is scrolled in proportion

interface Properties<T> {
  label: string;
  rowHeight: number;
  load(offset: number, limit: number): Promise<Page<T>>;
  /** Another list when it changes: scrolled to the top. */
  name: string;
  /** The same list with other rows: reloaded where it is. */
  version: number;
  row(item: T, index: number): ComponentChildren;
  keyOf(item: T): string;
  current: string;
  /** Where the current row is, if it is to be scrolled to. */
  position: number | null;
  /** A row was chosen by keyboard. */
  choose(item: T, index: number): void;
  onTotal(total: number): void;
  onError(error: unknown): void;
}

export function List<T>(properties: Properties<T>) {
  const { label, rowHeight, name, version, position, current } = properties;
  const box = useRef<HTMLDivElement>(null);
  const chunks = useRef(new Map<number, { rows: T[]; version: string }>());
  const asked = useRef(new Set<string>());
  const list = useRef(name);
  const [total, setTotal] = useState<number | null>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const [, redraw] = useState(0);

  if (list.current !== name) {
    list.current = name;
    chunks.current.clear();
  }
  const stamp = `${name}\0${version}`;
  const height = (total ?? 0) * rowHeight;
  const drawn = Math.min(height, MOST_PIXELS);
  const ratio = drawn > view.height && height > drawn ? (height - view.height) / (drawn - view.height) : 1;
  const top = view.top * ratio;
  const first = Math.max(0, Math.floor(top / rowHeight) - AROUND);
  const last = Math.min(total ?? CHUNK, Math.ceil((top + view.height) / rowHeight) + AROUND);

  const fetchChunk = (number: number) => {
    const wanted = `${stamp}\0${number}`;
    if (asked.current.has(wanted) || chunks.current.get(number)?.version === stamp) return;
    asked.current.add(wanted);
    properties.load(number * CHUNK, CHUNK).then(
      (page) => {
        asked.current.delete(wanted);
        if (list.current !== name) return;
        chunks.current.set(number, { rows: page.rows, version: stamp });
        setTotal(page.total);
        properties.onTotal(page.total);
        redraw((count) => count + 1);
      },
      (error) => {
        asked.current.delete(wanted);
        properties.onError(error);
      },
    );
  };

  // What flies past while scrolling is not asked for.
  useEffect(() => {
    const timer = setTimeout(() => {
      for (let number = Math.floor(first / CHUNK); number <= Math.floor(Math.max(first, last - 1) / CHUNK); number += 1) {
        fetchChunk(number);
      }
    }, chunks.current.size ? 50 : 0);
    return () => clearTimeout(timer);
  }, [stamp, Math.floor(first / CHUNK), Math.floor(last / CHUNK)]);

  useLayoutEffect(() => {
    const element = box.current!;
    const measure = () => setView({ top: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  useLayoutEffect(() => {
    if (position === null) box.current!.scrollTop = 0;
  }, [name]);

  useLayoutEffect(() => {
    if (position === null || total === null) return;
    const element = box.current!;
    const [above, below] = [position * rowHeight, (position + 1) * rowHeight];
    if (above >= top && below <= top + element.clientHeight) return;
    const near = Math.abs(above - top) < 2 * element.clientHeight;
    const target = !near ? above - element.clientHeight / 3 : above < top ? above : below - element.clientHeight;
    element.scrollTop = Math.max(0, target) / ratio;
  }, [position, total === null, name]);

  const at = (index: number) => chunks.current.get(Math.floor(index / CHUNK))?.rows[index % CHUNK];
  const move = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(view.height / rowHeight) - 1);
    const steps: Record<string, number> = {
      ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity,
    };
    const by = steps[event.key];
    if (by === undefined || !total) return;
    event.preventDefault();
    const from = position ?? (by > 0 ? -1 : 0);
    const index = Math.min(total - 1, Math.max(0, from + by));
    const known = at(index);
    if (known) properties.choose(known, index);
    else properties.load(index, 1).then((answer) => answer.rows[0] && properties.choose(answer.rows[0], index), properties.onError);
  };

  const items = [];
  for (let index = first; index < last; index += 1) {
    const item = at(index);
    const style = { top: `${index * rowHeight - top + view.top}px`, height: `${rowHeight}px` };
    const isCurrent = item !== undefined && properties.keyOf(item) === current;
    items.push(
      <li key={index} style={style} aria-setsize={total ?? -1} aria-posinset={index + 1} class={isCurrent ? "current" : undefined}>
        {item ? properties.row(item, index) : <span class="loading" aria-hidden="true" />}
      </li>,
    );
  }
  return (
    <div class="rows" ref={box} tabIndex={0} role="group" aria-label={label} data-keys onKeyDown={move}
      onScroll={(event) => setView({ top: event.currentTarget.scrollTop, height: event.currentTarget.clientHeight })}>
      <ol style={{ height: `${drawn}px` }}>{items}</ol>
      {total === 0 && <p class="nothing">Nothing matches.</p>}
    </div>
  );
}
