// Requests to the server; every address is relative to the page's own, which contains the token.

const answered = async (response) => {
  if (response.ok) return response;
  let text = response.statusText;
  try { text = (await response.json()).detail; } catch { /* no JSON: the status says it */ }
  const error = new Error(typeof text === "string" ? text : response.statusText);
  error.status = response.status;
  throw error;
};

const get = async (path) => answered(await fetch(path));
const json = async (path) => (await get(path)).json();
const post = async (path, body, keepalive = false) => (await answered(await fetch(path, {
  method: "POST", keepalive, body: body instanceof ArrayBuffer || ArrayBuffer.isView(body) ? body : JSON.stringify(body),
  headers: { "content-type": body instanceof ArrayBuffer || ArrayBuffer.isView(body) ? "application/octet-stream" : "application/json" },
}))).json();

// A tab keeps its session when it is loaded again, and so the study that it has.
const session = sessionStorage.getItem("session") ?? crypto.randomUUID();
sessionStorage.setItem("session", session);

export const archive = () => json("api/archive");
export const studies = () => json("api/studies");
export const study = (key) => json(`api/studies/${key}`);
export const agreement = (key) => json(`api/studies/${key}/agreement`);
export const hold = (key, author) => post(`api/studies/${key}/hold`, { session, author });
export const release = (key, author) => post(`api/studies/${key}/release`, { session, author }, true);
export const say = (key, opinion) => post(`api/studies/${key}/opinions`, { session, ...opinion });

export const image = async (key, channel) => {
  const response = await get(`api/studies/${key}/image?channel=${channel}`), head = response.headers;
  return {
    values: new Int16Array(await response.arrayBuffer()),
    slope: Number(head.get("x-slope")), intercept: Number(head.get("x-intercept")),
    window: head.get("x-window").split(" ").map(Number),
  };
};

export const labels = async (key, name) =>
  new Uint16Array(await (await get(`api/studies/${key}/maps/${name}`)).arrayBuffer());

export const save = (key, values, author, base) =>
  post(`api/studies/${key}/corrections?${new URLSearchParams({ session, author, base })}`, values);
