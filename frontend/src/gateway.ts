// What a page asks of a gateway: its own API, with the key of whoever looks.
import type { Block, Overlay, Picture, Turn } from "./data";

export interface Parameter {
  type?: string;
  description?: string;
  enum?: unknown[];
  minimum?: number;
  maximum?: number;
  maxItems?: number;
  items?: Parameter;
  default?: unknown;
}
export interface Tool {
  name: string;
  description: string;
  parameters: { properties: Record<string, Parameter>; required?: string[] };
  image_parameters: string[];
}
export interface Served {
  id: string;
}

/** A picture that the page holds: what it shows, and what it sends. */
export interface Held extends Picture {
  src: string; // of this page: an object's address
  data: string; // base64
}

export interface ToolAnswer {
  text: string;
  data: Record<string, unknown>;
  images: { data: string }[];
  overlay: Overlay;
}

interface Traced {
  role: "assistant" | "tool";
  text: string;
  seconds: number;
  calls?: { id: string; name: string; arguments: Record<string, unknown> }[];
  results?: (Omit<Extract<Block, { type: "tool_result" }>, "type"> & { images: string[] })[];
  pictures?: Record<string, { sha256: string; width: number; height: number }>;
}

/** What a gateway says is wrong, in its own words. */
export class Refused extends Error {
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

const KEY = "thinkimg-key";

/** The key stands behind `#key=` in the address, which no server sees, and is then kept for this tab alone. */
export function keyOfThisTab(): string {
  const given = new URLSearchParams(location.hash.replace(/^#/, "")).get("key");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEY) ?? "";
}

export class Gateway {
  constructor(private key: string) {}

  useKey(key: string): void {
    this.key = key;
    sessionStorage.setItem(KEY, key);
  }

  /** The description of the API, OpenAPI 3.1. */
  description(): Promise<unknown> {
    return this.json("openapi.json");
  }

  async tools(): Promise<Tool[]> {
    return ((await this.json("v1/tools")) as { tools: Tool[] }).tools;
  }

  async models(): Promise<Served[]> {
    return ((await this.json("v1/models")) as { data: Served[] }).data;
  }

  call(tool: string, args: Record<string, unknown>, pictures: Record<string, Held>, signal: AbortSignal): Promise<ToolAnswer> {
    const images = Object.fromEntries(Object.entries(pictures).map(([handle, picture]) => [handle, picture.data]));
    const body = JSON.stringify({ arguments: args, images });
    return this.json(`v1/tools/${encodeURIComponent(tool)}?overlay=true`, { method: "POST", body, signal }) as Promise<ToolAnswer>;
  }

  /** Ask a model; each turn is handed over as it ends. Returns the answer. */
  async ask(model: string, question: string, pictures: Held[], add: (turn: Turn, pictures: Record<string, Held>) => void, signal: AbortSignal): Promise<string> {
    const content = [
      ...pictures.map((picture) => ({ type: "image_url", image_url: { url: `data:image/png;base64,${picture.data}` } })),
      { type: "text", text: question },
    ];
    const asked = { model, stream: true, messages: [{ role: "user", content }], thinkimg: { trace: true, overlays: true } };
    const response = await this.fetch("v1/chat/completions", { method: "POST", body: JSON.stringify(asked), signal });
    let answer = "";
    for await (const event of eventsOf(response)) {
      const said = JSON.parse(event);
      if (said.error) throw new Refused(502, said.error.message);
      answer += said.choices?.[0]?.delta?.content ?? "";
      for (const entry of (said.thinkimg?.trace ?? []) as Traced[]) add(turnOf(entry), await this.held(entry.pictures ?? {}, signal));
    }
    return answer;
  }

  /** Pictures that the gateway holds for this caller, by handle. */
  private async held(named: NonNullable<Traced["pictures"]>, signal: AbortSignal): Promise<Record<string, Held>> {
    const found: Record<string, Held> = {};
    for (const [handle, { sha256, width, height }] of Object.entries(named)) {
      const blob = await (await this.fetch(`v1/images/${sha256}`, { signal })).blob();
      found[handle] = { sha: sha256, width, height, src: URL.createObjectURL(blob), data: await base64Of(blob) };
    }
    return found;
  }

  private async json(path: string, options: RequestInit = {}): Promise<unknown> {
    return (await this.fetch(path, options)).json();
  }

  private async fetch(path: string, options: RequestInit = {}): Promise<Response> {
    const headers: Record<string, string> = { accept: "application/json", "content-type": "application/json" };
    if (this.key) headers.authorization = `Bearer ${this.key}`;
    const response = await fetch(path, { ...options, headers, referrerPolicy: "no-referrer" }).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, "The gateway does not answer. Is it still running?");
    });
    if (response.ok) return response;
    const text = await response.text();
    throw new Refused(response.status, wordsOf(text) || `The gateway answered ${response.status}.`);
  }
}

/** Of a problem document, or of an error as OpenAI's API has it. */
function wordsOf(text: string): string {
  try {
    const document = JSON.parse(text);
    return document.detail ?? document.error?.message ?? "";
  } catch {
    return text;
  }
}

async function* eventsOf(response: Response): AsyncGenerator<string> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop()!;
    for (const line of lines) if (line.startsWith("data: ") && line !== "data: [DONE]") yield line.slice(6);
  }
}

function turnOf({ role, text, seconds, calls = [], results }: Traced): Turn {
  const blocks: Block[] = [];
  if (role === "assistant") {
    if (text) blocks.push({ type: "text", text });
    blocks.push(...calls.map((call) => ({ type: "tool_call" as const, ...call })));
  } else if (!results) {
    blocks.push({ type: "text", text });
  } else {
    for (const { images, ...result } of results) {
      blocks.push({ type: "tool_result", ...result }, ...images.map((handle) => ({ type: "image" as const, handle })));
    }
  }
  return { role, seconds, finish: null, blocks };
}

export async function base64Of(blob: Blob): Promise<string> {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const pieces: string[] = [];
  for (let at = 0; at < bytes.length; at += 0x8000) pieces.push(String.fromCharCode(...bytes.subarray(at, at + 0x8000)));
  return btoa(pieces.join(""));
}

/** A picture of the reader's, or one that a tool made. Throws if the browser cannot show it. */
export async function holdPicture(blob: Blob): Promise<Held> {
  const src = URL.createObjectURL(blob);
  const image = new Image();
  image.src = src;
  await image.decode().catch(() => {
    URL.revokeObjectURL(src);
    throw new Error("This browser cannot show that file as a picture.");
  });
  return { sha: "", width: image.naturalWidth, height: image.naturalHeight, src, data: await base64Of(blob) };
}

export function blobOf(base64: string, type = "image/png"): Blob {
  return new Blob([Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0))], { type });
}
