import { CliError } from "./context.ts";

/** Asks at the terminal for a line that is not shown. @throws CliError when it is broken off */
export async function askHidden(prompt: string): Promise<string> {
  const { stdin, stderr } = process;
  stderr.write(prompt);
  stdin.setRawMode(true);
  stdin.resume();
  try {
    return await new Promise<string>((resolve, reject) => {
      let line = "";
      const take = (chunk: Buffer) => {
        for (const character of chunk.toString("utf8")) {
          if (character === "\r" || character === "\n") {
            stdin.removeListener("data", take);
            resolve(line);
            return;
          }
          if (character === "\u0003" || character === "\u0004") {
            stdin.removeListener("data", take);
            reject(new CliError("failed", "broken off"));
            return;
          }
          // Backspace, as terminals send it.
          line = character === "\u007f" || character === "\b" ? line.slice(0, -1) : line + character;
        }
      };
      stdin.on("data", take);
    });
  } finally {
    stdin.setRawMode(false);
    stdin.pause();
    stderr.write("\n");
  }
}
