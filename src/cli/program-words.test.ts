import { expect, test } from "bun:test";
import { markProgramWords } from "./program-words.ts";

const marked = (line: string) => markProgramWords(line.split(" ")).join(" ");

test("what follows the container is the program's, its options too", () => {
  expect(marked("exec -it c-1 ls -l")).toBe("exec -it c-1 -- ls -l");
  expect(marked("exec -e A=1 --user ann -iw /tmp c-1 sh -c x")).toBe(
    "exec -e A=1 --user ann -iw /tmp c-1 -- sh -c x",
  );
  expect(marked("run --rm -it --memory 1Gi --secret-env a=B --creds-file f img sh -c x")).toBe(
    "run --rm -it --memory 1Gi --secret-env a=B --creds-file f img -- sh -c x",
  );
  expect(marked("run img")).toBe("run img");
});

test("leaves alone what is marked, and other commands", () => {
  for (const line of [
    "exec -i c-1 -- ls -l",
    "run img --rm -- ls",
    "exec -- c-1 ls",
    "exec --help",
    "exec",
    "ps --all",
  ])
    expect(marked(line)).toBe(line);
});
