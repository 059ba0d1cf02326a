import { describe, expect, test } from "bun:test";
import type { CredentialMap, RegistryAuthorization } from "./provider.ts";
import { sourcedProvider } from "./sourced.ts";
import { credentialMap } from "./value.ts";

const pair = (password: string): CredentialMap => credentialMap({ USERNAME: "u", PASSWORD: password });
const shown = (authorization: RegistryAuthorization): string =>
  authorization.kind === "basic" ? authorization.password.expose() : authorization.kind;

describe("a credential that another program keeps", () => {
  test("is read again when it is refused, and not before", async () => {
    const source = [pair("second"), credentialMap({ REGISTRY_TOKEN: "third" })];
    let reads = 0;
    const provider = sourcedProvider("r.test", pair("first"), async () => source[reads++] ?? pair("none"));
    expect(provider.renewable).toBe(true);
    expect([shown(await provider.authorization()), reads]).toEqual(["first", 0]);
    expect([shown(await provider.authorization(undefined, { refresh: true })), reads]).toEqual(["second", 1]);
    expect([shown(await provider.authorization()), reads]).toEqual(["second", 1]);
    expect(shown(await provider.authorization(undefined, { refresh: true }))).toBe("bearer");
  });

  test("that is the same as the one refused is not sent once more, and works again when it has changed", async () => {
    let now = pair("first");
    const provider = sourcedProvider("r.test", pair("first"), async () => now);
    const again = () => provider.authorization(undefined, { refresh: true });
    await expect(again()).rejects.toMatchObject({
      code: "unchanged",
      next: expect.stringContaining("r.test"),
    });
    now = pair("second");
    expect(shown(await again())).toBe("second");
  });

  test("that cannot be read is told by its own error, and the old one stays", async () => {
    const provider = sourcedProvider("r.test", pair("first"), () =>
      Promise.reject(new Error("helper failed")),
    );
    await expect(provider.authorization(undefined, { refresh: true })).rejects.toThrow("helper failed");
    expect(shown(await provider.authorization())).toBe("first");
  });
});
