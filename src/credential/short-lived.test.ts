import { expect, test } from "bun:test";
import { describeShortLived } from "./short-lived.ts";
import { credentialMap } from "./value.ts";

const ecr = "111111111111.dkr.ecr.us-east-1.amazonaws.com";
const zero = "00000000-0000-0000-0000-000000000000";

test.each([
  [ecr, { USERNAME: "AWS", PASSWORD: "x" }, "12 hours"],
  ["europe-docker.pkg.dev", { USERNAME: "oauth2accesstoken", PASSWORD: "x" }, "an hour"],
  ["eu.gcr.io", { USERNAME: "oauth2accesstoken", PASSWORD: "x" }, "an hour"],
  ["acme.azurecr.io", { USERNAME: zero, PASSWORD: "x" }, "3 hours"],
  ["acme.azurecr.io", { REGISTRY_IDENTITY_TOKEN: "x" }, "3 hours"],
  [ecr, { USERNAME: "robot", PASSWORD: "x" }, undefined],
  ["ghcr.io", { USERNAME: "AWS", PASSWORD: "x" }, undefined],
  ["evil-gcr.io", { USERNAME: "oauth2accesstoken", PASSWORD: "x" }, undefined],
  ["pkg.dev.evil.com", { USERNAME: "oauth2accesstoken", PASSWORD: "x" }, undefined],
  ["r.test", { REGISTRY_IDENTITY_TOKEN: "x" }, undefined],
])("what a login at %s leaves as %j ends by itself: %p", (registry, values, after) => {
  const told = describeShortLived(registry, credentialMap(values as Record<string, string>));
  if (after === undefined) expect(told).toBeUndefined();
  else expect(told).toEndWith(`ends after ${after}`);
});
