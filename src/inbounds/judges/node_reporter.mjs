// A reporter for node's own test runner: JUnit XML whose test cases name their file, which node's own reporter leaves
// out before version 22. It runs in the runner's process; test files run in processes of their own.
import path from "node:path";

const escaped = (text) =>
  String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c])
    .replace(/[^\t\n\r\x20-\ud7ff\ue000-\ufffd]/g, "?");

// The names of the suites around a test, by file: events of one file come in order, outermost suite started first.
const around = new Map();

function name(data) {
  const names = around.get(data.file) ?? [];
  return [...names.slice(0, data.nesting), data.name].join(" > ");
}

function started(data) {
  const names = around.get(data.file) ?? [];
  around.set(data.file, [...names.slice(0, data.nesting), data.name]);
}

function testcase(data, passed) {
  const file = data.file ? path.relative(process.env.INBOUNDS_ROOT ?? "/work", data.file) : "";
  const title = data.name === data.file ? "" : name(data);  // a file that cannot be loaded stands for itself
  const skipped = data.skip !== undefined || data.todo !== undefined;
  const why = data.details?.error?.cause?.message ?? "failed";
  const inside = skipped ? "<skipped/>" : passed ? "" : `<failure message="${escaped(why)}"/>`;
  const seconds = (data.details?.duration_ms ?? 0) / 1000;
  return `<testcase file="${escaped(file)}" name="${escaped(title)}" time="${seconds}">${inside}</testcase>\n`;
}

export default async function* report(source) {
  yield '<?xml version="1.0" encoding="utf-8"?>\n<testsuites><testsuite name="node">\n';
  for await (const { type, data } of source) {
    if (type === "test:start") started(data);
    // A suite passes and fails with its tests.
    if ((type === "test:pass" || type === "test:fail") && data.details?.type !== "suite") {
      yield testcase(data, type === "test:pass");
    }
  }
  yield "</testsuite></testsuites>\n";
}
