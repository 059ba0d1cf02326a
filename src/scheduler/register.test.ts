import { expect, test } from "bun:test";
import { schedulerService } from "./service.ts";

test.each([
  "http://127.0.0.1:7072",
  "https://user:word@127.0.0.1:7072",
  "https://127.0.0.1:7072/latest/meta-data",
  "https://127.0.0.1:7072/?to=",
  "https://127.0.0.1:7072/#",
  "127.0.0.1:7072",
  "file:///etc/passwd",
  "",
])("a worker at %p is not registered: it would be called there", async (address) => {
  // Nothing is asked of any store before that.
  const { registerWorker } = schedulerService({} as never);
  expect(async () => registerWorker({ workerId: "w1", address } as never, {} as never)).toThrow(
    "a worker's address is https://HOST:PORT",
  );
});
