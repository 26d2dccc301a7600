// The page `/docs` of a gateway: what its openapi.json says, for people. It needs nothing from other machines.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Gateway, keyOfThisTab, Refused } from "./gateway";
import { KeyForm } from "./key";
import { Trouble } from "./parts";

interface Schema {
  type?: string | string[];
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  oneOf?: Schema[];
  anyOf?: Schema[];
  enum?: unknown[];
  minimum?: number;
  maximum?: number;
  default?: unknown;
}
interface Operation {
  summary: string;
  tags: string[];
  requestBody?: { content: Record<string, { schema?: Schema }> };
  responses: Record<string, { description: string }>;
}
interface Description {
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  security?: unknown[];
}
interface Entry {
  method: string;
  path: string;
  operation: Operation;
}

const TITLES: Record<string, string> = { tools: "Tools", chat: "Models", mcp: "MCP", openthinkimg: "OpenThinkIMG", operations: "Operation" };
const METHODS = ["get", "post", "put", "head", "delete"];
const gateway = new Gateway(keyOfThisTab());

function App() {
  const [description, setDescription] = useState<Description>();
  const [error, setError] = useState<unknown>();
  const [needsKey, setNeedsKey] = useState(false);
  const read = async () => {
    try {
      setDescription((await gateway.description()) as Description);
      setNeedsKey(false);
    } catch (failure) {
      if (failure instanceof Refused && failure.status === 401) setNeedsKey(true);
      else setError(failure);
    }
  };
  useEffect(() => void read(), []);
  const entries = Object.entries(description?.paths ?? {}).flatMap(([path, methods]) =>
    METHODS.flatMap((method) => (methods[method] ? [{ method, path, operation: methods[method] }] : [])));
  return (
    <>
      <header class="bar"><h1>{description ? `${description.info.title} ${description.info.version}` : "ThinkIMG gateway"}</h1></header>
      <main class="docs" tabIndex={-1}>
        {error ? <Trouble error={error} /> : null}
        {needsKey && <KeyForm use={(key) => { gateway.useKey(key); read(); }} />}
        {description && <p class="note">{description.security ? "Calls need a key: Authorization: Bearer KEY. " : "No key is needed here. "}<a href="openapi.json">openapi.json</a> <a href="play">play</a></p>}
        {Object.entries(TITLES).map(([tag, title]) => {
          const own = entries.filter((entry) => entry.operation.tags.includes(tag));
          return own.length > 0 && <section key={tag}><h2>{title}</h2>{own.map((entry) => <Item key={entry.method + entry.path} {...entry} />)}</section>;
        })}
      </main>
    </>
  );
}

function Item({ method, path, operation }: Entry) {
  const schema = operation.requestBody?.content["application/json"]?.schema;
  const tool = /^\/v1\/tools\/([^/]+)$/.exec(path)?.[1];
  return (
    <details>
      <summary><b class="method">{method.toUpperCase()}</b> <code>{path}</code> <span>{operation.summary}</span></summary>
      {schema?.properties && <Members schema={schema} />}
      {tool && schema && <pre tabIndex={0}>{curlOf(path, schema)}</pre>}
      <p class="note">{Object.entries(operation.responses).map(([status, { description }]) => `${status}: ${description}`).join(" · ")}</p>
    </details>
  );
}

function Members({ schema }: { schema: Schema }) {
  const required = new Set(schema.required ?? []);
  return (
    <dl class="members">
      {Object.entries(schema.properties ?? {}).map(([name, member]) => [
        <dt key={name}><code>{name}</code>{required.has(name) ? "" : " (optional)"}</dt>,
        <dd key={`${name}=`}>
          <i>{kindOf(member)}</i> {member.description}
          {member.properties && <Members schema={member} />}
        </dd>,
      ])}
    </dl>
  );
}

/** `number, 0 to 100`, `list of 4 numbers`, `one of "a", "b"`. */
function kindOf(schema: Schema): string {
  if (schema.enum) return `one of ${schema.enum.map((one) => JSON.stringify(one)).join(", ")}`;
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return [...new Set(choices.map(kindOf))].join(" or ");
  if (schema.type === "array") return `list of ${schema.items ? kindOf(schema.items) : "anything"}`;
  const range = schema.minimum !== undefined && schema.maximum !== undefined ? `, ${schema.minimum} to ${schema.maximum}` : "";
  return `${[schema.type ?? "anything"].flat().join(" or ")}${range}`;
}

/** A whole call that works once the values are one's own. */
function curlOf(path: string, schema: Schema): string {
  const { properties = {}, required = [] } = schema.properties?.arguments ?? {};
  const args = Object.fromEntries(required.map((name) => [name, exampleOf(name, properties[name] ?? {})]));
  const [before, after] = JSON.stringify({ arguments: args, images: { img_1: "PICTURE" } }).split("PICTURE");
  const address = new URL(path.slice(1), document.baseURI.replace(/docs.*/, "")).href;
  return `echo '${before}'"$(base64 < chart.png | tr -d '\\n')"'${after}' |\n  curl -s ${address} -H "Authorization: Bearer $KEY" \\\n    -H "Content-Type: application/json" --data-binary @-`;
}

function exampleOf(name: string, schema: Schema): unknown {
  if (name === "image") return "img_1";
  if (schema.type === "number" || schema.type === "integer") return Math.round(((schema.minimum ?? 0) + (schema.maximum ?? 100)) / 2);
  if (schema.type !== "array") return `the ${name}`;
  if (schema.items?.type === "array") return [[25, 50], [75, 50]];
  return [0, 0, 50, 50];
}

render(<App />, document.getElementById("app")!);
