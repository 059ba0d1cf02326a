import { expect, test } from "bun:test";
import { run, type StricliProcess } from "@stricli/core";
import { application } from "./app.ts";

/** What a command line that cannot be read is answered with. */
async function answerTo(line: string): Promise<{ readonly code: unknown; readonly text: string }> {
  const pieces: string[] = [];
  const stream = { write: (text: string) => void pieces.push(text) };
  const process: StricliProcess = { stdout: stream, stderr: stream };
  await run(application, line.split(" "), { process });
  return { code: process.exitCode, text: pieces.join("") };
}

const see = "  See `oci-node --help`, or --help of the command.\n";

test.each([
  ["psx", 'there is no command "psx"; did you mean `ps`?'],
  ["volume create", 'there is no command "create"'],
  ["logs", "ID is missing"],
  ["run", "IMAGE [CMD…] is missing"],
  ["exec db", "ID CMD… is missing"],
  ["logs --tail x db", '--tail: "x" is no number of lines'],
  ["run -p foo IMAGE", '--publish: "foo" is no [ADDRESS:][HOST:]CONTAINER[/udp], such as 8080:80'],
  ["ps --frob", "there is no flag --frob; did you mean --json?"],
  ["ps -z", "there is no flag -z"],
])("tells who speaks, what is wrong and where to look: %s", async (line, words) => {
  const { text } = await answerTo(line);
  expect(text).toBe(`oci-node: ${words}\n${see}`);
});

test("the help of a command begins with what it does", async () => {
  const { code, text } = await answerTo("wait --help");
  expect(code).toBe(0);
  expect(text).toContain(
    "\nWait until containers have ended, and print their exit codes. One that never started gives 125.\n",
  );
  expect((await answerTo("ps --help")).text).toContain("\nList containers\n");
});
