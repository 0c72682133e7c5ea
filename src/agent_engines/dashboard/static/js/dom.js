// Building the page. Whatever comes from the server becomes text, never markup.

export const $ = (id) => document.getElementById(id);

/** An element with attributes ("text" is its text; null leaves one out) and children. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name === "text") node.textContent = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

export function svg(tag, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** Write only what changed, so that a selection or a screen reader is not disturbed. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Make the children of `parent` show `items` in order; a child with a known key is kept and updated. */
export function keyed(parent, items, keyOf, create, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let node = known.get(key);
    if (node === undefined) {
      node = create(item);
      node.dataset.key = key;
    }
    known.delete(key);
    if (update) update(node, item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const gone of known.values()) gone.remove();
}

/** A bar from 0 to 1; over 80 % it warns, full is bad only when `strict`. */
export function meter() {
  return el("div", { class: "meter", "aria-hidden": "true" }, el("span"));
}

export function fillMeter(node, share, tone = "") {
  const width = `${Math.round(Math.min(1, Math.max(0, share)) * 100)}%`;
  if (node.firstChild.style.width !== width) node.firstChild.style.width = width;
  setAttribute(node, "data-tone", tone || null);
}

export function pill(text, tone) {
  return el("span", { class: "pill", "data-tone": tone, text });
}

export function setPill(node, text, tone) {
  setText(node, text);
  setAttribute(node, "data-tone", tone || null);
}
