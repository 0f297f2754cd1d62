// The description of the server, openapi.json, as a page. Swagger UI would be loaded from another
// site, and needs styles in attributes, which the server's Content-Security-Policy does not allow.

import {ask} from "./asking.js";

const main = document.getElementById("operations");

// Return an element with children, which are elements or texts.
function make(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

function table(headings, rows) {
  const line = (tag, cells) => make("tr", ...cells.map(cell => make(tag, cell)));
  return make("table", make("thead", line("th", headings)),
    make("tbody", ...rows.map(cells => line("td", cells))));
}

// Return a schema in words: `list of Prediction`.
function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  if (schema.format === "binary") return "file";
  if (schema.enum) return schema.enum.map(value => JSON.stringify(value)).join(" or ");
  if (schema.additionalProperties) return `${kind(schema.additionalProperties)} by name`;
  return schema.type ?? "anything";
}

function contentOf({content = {}}) {
  return Object.entries(content).map(([type, {schema}]) => {
    const fields = Object.entries(schema.properties ?? {});
    const names = fields.map(([name, field]) => `${name}: ${kind(field)}`).join(", ");
    return `${type} (${names || kind(schema)})`;
  });
}

function operation(method, path, about) {
  const section = make("section", make("h2", make("code", `${method.toUpperCase()} ${path}`)),
    make("p", about.description ?? about.summary));
  section.className = "operation";
  if (path === "/predict") {
    section.append(make("pre", `curl --form files=@7.jpg --form files=@3.jpg ${location.origin}/predict\n` +
      `curl --data-binary @7.jpg ${location.origin}/predict`));
  }
  if (about.parameters) {
    section.append(make("h3", "Parameters"), table(["name", "kind", "meaning"],
      about.parameters.map(each => [each.name, kind(each.schema), each.description ?? ""])));
  }
  if (about.requestBody) {
    section.append(make("h3", "Body"), make("p", contentOf(about.requestBody).join("; or ")));
  }
  section.append(make("h3", "Answers"), table(["status", "meaning", "content"],
    Object.entries(about.responses).map(([status, response]) =>
      [status, response.description, contentOf(response).join(", ")])));
  return section;
}

function schema(name, {description = "", properties = {}}) {
  const section = make("section", make("h2", make("code", name)), make("p", description.split("\n\n")[0]),
    table(["field", "kind", "meaning"], Object.entries(properties).map(([field, about]) =>
      [field, kind(about), about.description ?? ""])));
  section.className = "operation";
  return section;
}

try {
  const {paths, components} = await ask("openapi.json");
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, about] of Object.entries(methods)) {
      main.append(operation(method, path, about));
    }
  }
  for (const [name, about] of Object.entries(components.schemas)) main.append(schema(name, about));
} catch (error) {
  document.getElementById("alert").textContent = error.message;
  document.getElementById("alert").hidden = false;
}
