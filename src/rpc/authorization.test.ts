import { expect, test } from "bun:test";
import { join } from "node:path";
import type { GenFile } from "@bufbuild/protobuf/codegenv2";
import { accessTo, authorization } from "./authorization.ts";

const folder = join(import.meta.dir, "../gen/oci_node/v1");

/** `oci_node.v1.ImageService/buildImage`, of every service that there is. */
async function allMethods(): Promise<string[]> {
  const methods: string[] = [];
  for (const name of new Bun.Glob("*_pb.ts").scanSync({ cwd: folder })) {
    const exported = (await import(join(folder, name))) as Record<string, unknown>;
    const file = Object.entries(exported).find(([key]) => key.startsWith("file_"))?.[1] as GenFile;
    for (const service of file.services)
      for (const method of service.methods) methods.push(`${service.typeName}/${method.localName}`);
  }
  return methods.sort();
}

test("every method of every service stands in the table, and nothing else does", async () => {
  const rows = Object.entries(authorization).flatMap(([service, methods]) =>
    Object.keys(methods).map((method) => `${service}/${method}`),
  );
  expect(rows.sort()).toEqual(await allMethods());
});

test("what is not in the table is nobody's, whatever objects have by nature", () => {
  for (const [service, method] of [
    ["oci_node.v1.ImageService", "toString"],
    ["oci_node.v1.ImageService", "__proto__"],
    ["oci_node.v1.Other", "buildImage"],
    ["constructor", "name"],
  ] as const)
    expect(accessTo(service, method)).toBeUndefined();
});

test("credentials are given out to nobody who may only look, nor to the cluster's own tokens", () => {
  expect(accessTo("oci_node.v1.CredentialService", "getRegistryCredential")).toMatchObject({
    roles: ["owner", "developer"],
    about: "own workspace",
  });
});

test("no token of the cluster calls for anything that belongs to a workspace", () => {
  const wrong = Object.entries(authorization).flatMap(([service, methods]) =>
    Object.entries(methods as Record<string, ReturnType<typeof accessTo>>)
      .filter(([, access]) => access?.by === "token" && access.about === "own workspace")
      .filter(
        ([, access]) => access?.by === "token" && access.roles.some((role) => /admin|worker/.test(role)),
      )
      .map(([method]) => `${service}/${method}`),
  );
  expect(wrong).toEqual([]);
});
