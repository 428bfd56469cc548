// Reads a JSON list of Kubernetes objects, and writes what the published schemas have against them,
// a line each. The validators that the packages carry know values and let unknown fields pass, as the
// API server does; their TypeScript declarations know the fields.
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const HERE = dirname(fileURLToPath(import.meta.url));
const PACKAGES = { "istio.io": "@kubernetes-models/istio", "gateway.envoyproxy.io": "@kubernetes-models/envoy-gateway", "gateway.networking.k8s.io": "@kubernetes-models/gateway-api" };

// The kind's own file: the group's index would bring in all its kinds, at seconds each.
function moduleOf({ apiVersion, kind }) {
  const group = apiVersion.includes("/") ? apiVersion.split("/")[0] : "";
  const known = Object.entries(PACKAGES).find(([suffix]) => group === suffix || group.endsWith(`.${suffix}`));
  return `${known ? known[1] : "kubernetes-models"}/${apiVersion}/${kind}`;
}

const problems = [];
const objects = JSON.parse(readFileSync(0, "utf8"));
const source = [];
for (const [index, object] of objects.entries()) {
  const module = moduleOf(object);
  const name = `${object.kind} ${object.metadata.name}`;
  let Model;
  try {
    Model = (await import(module))[object.kind];
  } catch (error) {
    problems.push(`${name}: no published schema (${error.code})`);
    source.push("");
    continue;
  }
  try {
    new Model(object).validate();
  } catch (error) {
    problems.push(`${name}: ${error.message}`);
  }
  // One line for each object, so that a diagnostic's line tells which.
  source.push(`import type { I${object.kind} as T${index} } from "${module}"; export const o${index}: T${index} = ${JSON.stringify(object)};`);
}

const file = join(HERE, `.objects-${process.pid}.ts`);
writeFileSync(file, source.join("\n"));
try {
  const options = { noEmit: true, strict: true, skipLibCheck: true, types: [], module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler };
  const program = ts.createProgram([file], options);
  for (const diagnostic of ts.getPreEmitDiagnostics(program)) {
    const line = diagnostic.file?.getLineAndCharacterOfPosition(diagnostic.start).line;
    const { kind, metadata } = objects[line] ?? { kind: "?", metadata: {} };
    problems.push(`${kind} ${metadata.name}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, " ")}`);
  }
} finally {
  rmSync(file);
}
console.log(problems.join("\n"));
process.exitCode = problems.length ? 1 : 0;
