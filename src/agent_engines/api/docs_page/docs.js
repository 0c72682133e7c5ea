// Renders /openapi.json. Text is only ever set as text, so nothing in the document can become markup.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const slug = (text) => text.replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "").toLowerCase();
const pretty = (value) => element("pre", {}, JSON.stringify(value, null, 2));

function typeOf(schema) {
  if (schema === undefined || schema === null) return document.createTextNode("");
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return element("a", { href: `#schema-${slug(name)}` }, name);
  }
  const options = schema.anyOf ?? schema.oneOf;
  if (options) {
    const parts = options.flatMap((option, index) => (index ? [" or ", typeOf(option)] : [typeOf(option)]));
    return element("span", {}, ...parts);
  }
  if (schema.enum) return element("code", {}, schema.enum.join(" | "));
  if (schema.type === "array" && schema.items) return element("span", {}, "list of ", typeOf(schema.items));
  const bounds = ["minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "format"]
    .filter((key) => key in schema)
    .map((key) => `${key} ${schema[key]}`);
  return document.createTextNode([schema.type ?? "any", ...bounds].join(", "));
}

function table(headings, rows) {
  return element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell))))),
  );
}

function resolved(response, description) {
  if (!response.$ref) return response;
  return description.components.responses[response.$ref.split("/").pop()];
}

function operation(path, method, detail, description) {
  const parts = [
    element(
      "summary",
      {},
      element("span", { class: "method" }, method.toUpperCase()),
      element("span", { class: "path" }, path),
      element("span", { class: "what" }, detail.summary),
    ),
  ];
  if (detail.parameters.length) {
    parts.push(
      table(
        ["parameter", "in", "type", "meaning"],
        detail.parameters.map((each) => [each.name, each.in, typeOf(each.schema), each.description ?? ""]),
      ),
    );
  }
  const body = detail.requestBody?.content["application/json"];
  if (body) parts.push(element("p", {}, "Body: ", typeOf(body.schema)), pretty(body.example));
  const answers = Object.entries(detail.responses).map(([status, response]) => {
    const whole = resolved(response, description);
    const [kind, content] = Object.entries(whole.content ?? {})[0] ?? ["", {}];
    return [status, whole.description, kind, typeOf(content.schema)];
  });
  parts.push(table(["status", "meaning", "media type", "shape"], answers));
  return element("details", { id: slug(detail.operationId) }, ...parts);
}

function render(description) {
  document.getElementById("version").textContent = description.info.version;
  document.getElementById("about").textContent = description.info.description;
  const operations = document.getElementById("operations");
  operations.replaceChildren();
  for (const tag of description.tags) {
    operations.append(element("h2", {}, tag.name));
    for (const [path, methods] of Object.entries(description.paths)) {
      for (const [method, detail] of Object.entries(methods)) {
        if (detail.tags.includes(tag.name)) operations.append(operation(path, method, detail, description));
      }
    }
  }
  const problems = element("dl");
  for (const each of description["x-problems"]) {
    problems.append(
      element("dt", { id: each.type.split("#").pop() }, `${each.status} ${each.title}`),
      element("dd", {}, each.advice),
    );
  }
  document.getElementById("problems").append(problems);
  for (const [name, schema] of Object.entries(description.components.schemas)) {
    const fields = Object.entries(schema.properties ?? {}).map(([field, inner]) => [
      (schema.required ?? []).includes(field) ? `${field} *` : field,
      typeOf(inner),
      inner.description ?? "",
    ]);
    document.getElementById("schemas").append(
      element(
        "details",
        { id: `schema-${slug(name)}` },
        element("summary", {}, element("code", {}, name), element("span", { class: "what" }, schema.description ?? "")),
        fields.length ? table(["field", "type", "meaning"], fields) : pretty(schema),
      ),
    );
  }
  reveal();
}

function reveal() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (!target) return;
  if (target instanceof HTMLDetailsElement) target.open = true;
  target.scrollIntoView();
}

addEventListener("hashchange", reveal);
try {
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  render(await answer.json());
} catch (error) {
  document.getElementById("state").textContent = `The description could not be loaded: ${error.message}`;
}
