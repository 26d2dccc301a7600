// Asks for the key of a gateway that wants one.
import { useState } from "preact/hooks";

export function KeyForm({ use }: { use(key: string): void }) {
  const [key, setKey] = useState("");
  return (
    <form class="form key" onSubmit={(event) => { event.preventDefault(); use(key.trim()); }}>
      <label><span>This gateway wants a key</span><input type="password" value={key} onInput={(event) => setKey(event.currentTarget.value)} autocomplete="off" /></label>
      <small>Who runs it makes one with: thinkimg gateway keys add NAME --file FILE. It stays in this tab.</small>
      <button type="submit" class="main">Enter</button>
    </form>
  );
}
