import { expect, test } from "bun:test";
import { defaultOptions } from "../container/options.ts";
import type { EndpointSpec } from "./endpoint.ts";
import type { EndpointView } from "./view.ts";
import { toWireEndpoint } from "./wire-service.ts";

const spec: EndpointSpec = {
  imageId: "img-1",
  reference: "registry.example/web:1",
  command: [],
  port: 8000,
  env: {},
  cpuMillis: 0,
  memoryBytes: 0,
  network: "private",
  options: defaultOptions,
  public: false,
  requestTimeoutMs: 1000,
  concurrency: 1,
  queueMax: 1,
  containersMin: 0,
  containersMax: 1,
  keepWarmMs: 1000,
  startupTimeoutMs: 1000,
  bodyBytesMax: 1000,
};

function viewOf(workspaceName: string, open: boolean): EndpointView {
  const times = { createdAt: new Date(0), updatedAt: new Date(0) };
  const ids = { endpointId: "e-1", workspaceId: "w" };
  const demand = { queued: 0, inFlight: 0 };
  return {
    id: "e-1",
    workspaceId: "w",
    workspaceName,
    name: "web",
    activeDeploymentId: "d-1",
    deletingAt: undefined,
    ...times,
    clockAheadMs: 0,
    deployments: [
      {
        ...ids,
        ...times,
        id: "d-1",
        imageId: "img-1",
        lastUsedAt: new Date(0),
        ended: [],
        version: 1,
        state: "active",
        spec: { ...spec, public: open },
        reason: undefined,
        living: [],
        demand,
      },
    ],
  };
}

test("the URL of a public endpoint is one that anybody may call as it stands", () => {
  const url = (workspace: string, open: boolean) =>
    toWireEndpoint(viewOf(workspace, open), "https://node.example/").url;
  expect(url("payments", true)).toBe("https://node.example/endpoint/web.payments");
  expect(url("payments", false)).toBe("https://node.example/endpoint/web");
  expect(url("default", true)).toBe("https://node.example/endpoint/web");
});
