import { expect, test } from "bun:test";
import { PortProtocol, RestartKind } from "../gen/oci_node/v1/container_options_pb.ts";
import {
  parsePublish,
  parseRestart,
  parseSecretFile,
  parseSecretVariable,
  parseTmpfs,
  parseVolume,
} from "./container-words.ts";
import { parseEnvFile } from "./env-file.ts";

test("reads published ports as Docker writes them", () => {
  const tcp = { protocol: PortProtocol.TCP };
  expect(parsePublish("80")).toEqual({ hostAddress: "", hostPort: 0, containerPort: 80, ...tcp });
  expect(parsePublish("8080:80")).toEqual({ hostAddress: "", hostPort: 8080, containerPort: 80, ...tcp });
  expect(parsePublish("0.0.0.0::53/udp")).toEqual({
    hostAddress: "0.0.0.0",
    hostPort: 0,
    containerPort: 53,
    protocol: PortProtocol.UDP,
  });
  for (const text of ["", "a", "80:", ":", "1:2:3", "80/sctp", "::1:80:80", "8080-8090:80"])
    expect(() => parsePublish(text)).toThrow("[ADDRESS:][HOST:]CONTAINER");
});

test("reads volumes, file systems in memory and restarts", () => {
  expect(parseVolume("data:/v")).toEqual({ source: "data", target: "/v", readOnly: false });
  expect(parseVolume("/a:/v:ro")).toEqual({ source: "/a", target: "/v", readOnly: true });
  for (const text of ["data", ":/v", "data:", "a:/b:zz", "a:/b:ro:ro"])
    expect(() => parseVolume(text)).toThrow("SOURCE:TARGET");
  expect(parseTmpfs("/t")).toEqual({ path: "/t", sizeBytes: 64n * 1024n ** 2n, mode: 0o1777 });
  expect(parseTmpfs("/t:size=1Gi,mode=700")).toEqual({ path: "/t", sizeBytes: 1024n ** 3n, mode: 0o700 });
  for (const text of ["/t:", "/t:size=x", "/t:mode=9", "/t:exec"])
    expect(() => parseTmpfs(text)).toThrow("PATH[:size");
  expect(parseRestart("on-failure:3")).toEqual({ kind: RestartKind.ON_FAILURE, retriesMax: 3 });
  expect(parseRestart("always").kind).toBe(RestartKind.ALWAYS);
  for (const text of ["", "yes", "on-failure:", "on-failure:-1", "always:2"])
    expect(() => parseRestart(text)).toThrow("none of no, always");
});

test("reads which secret is which variable or file", () => {
  expect(parseSecretVariable("TOKEN").as).toEqual({ case: "variable", value: "TOKEN" });
  expect(parseSecretVariable("db=DB_PASSWORD")).toEqual({
    secretName: "db",
    as: { case: "variable", value: "DB_PASSWORD" },
  });
  expect(() => parseSecretVariable("my-db")).toThrow(
    '"my-db" is no name of a variable: write SECRET=VARIABLE',
  );
  expect(parseSecretFile("db").as).toEqual({ case: "path", value: "/run/secrets/db" });
  expect(parseSecretFile("db:/etc/db.key")).toEqual({
    secretName: "db",
    as: { case: "path", value: "/etc/db.key" },
  });
  expect(() => parseSecretFile(":/a")).toThrow("SECRET[:PATH]");
});

test("reads a file of variables as Docker does, and names the line that is none without showing it", () => {
  const read = (text: string) => parseEnvFile(Buffer.from(text), "app.env", { MINE: "of the caller" });
  expect(read('\uFEFFA=1\r\n# comment\n\n  B="two" # three\nMINE\nTHEIRS\nEMPTY=\nC=a=b\n')).toEqual({
    A: "1",
    B: '"two" # three',
    MINE: "of the caller",
    EMPTY: "",
    C: "a=b",
  });
  for (const line of ["hunter2 is=secret", "=hunter2", "B =hunter2", "A=hunter2\0"]) {
    expect(() => read(`OK=1\n${line}`)).toThrow("line 2 of app.env is no NAME=value");
    expect(() => read(`OK=1\n${line}`)).not.toThrow("hunter2");
  }
  expect(() => parseEnvFile(Uint8Array.of(0x41, 0x3d, 0xff), "app.env", {})).toThrow("no UTF-8");
});
