import type { ServiceImpl } from "@connectrpc/connect";
import type { ContainerChanges } from "../container/changes.ts";
import { type ContainerPolicies, checkAllowed } from "../container/policy.ts";
import { checkSpec } from "../container/spec.ts";
import { fromWireNetwork } from "../container/wire-service.ts";
import type { EndpointService, EndpointSpec as WireSpec } from "../gen/oci_node/v1/endpoint_service_pb.ts";
import { findImage } from "../image/service.ts";
import type { ImageStore } from "../image/store.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { logger } from "../std/log.ts";
import type { EndpointSpec } from "./endpoint.ts";
import { EndpointError } from "./error.ts";
import { checkName, containerOf, type EndpointLimits, resolveSpec } from "./spec.ts";
import { type EndpointStore, unknownEndpoint } from "./store.ts";
import type { EndpointView } from "./view.ts";
import { fromWireSpec, toWireDeployment, toWireEndpoint } from "./wire-service.ts";

const log = logger("endpoint");

export interface EndpointServiceDependencies {
  readonly endpoints: EndpointStore;
  readonly images: ImageStore;
  /** Fed with endpoints' ids. */
  readonly changes: ContainerChanges;
  readonly limits: EndpointLimits;
  readonly policyOf: ContainerPolicies;
  /** Where this gateway is called; empty: not known. */
  readonly gatewayUrl: () => string;
}

type Methods = Omit<ServiceImpl<typeof EndpointService>, "getCode" | "uploadCode">;

/** Answers EndpointService for the workspace of the caller, but for what is about code. */
export function endpointMethods(dependencies: EndpointServiceDependencies): Methods {
  const { endpoints, changes, gatewayUrl } = dependencies;
  const wire = (view: EndpointView) => toWireEndpoint(view, gatewayUrl());
  const found = async (workspaceId: string, name: string) => {
    checkName(name);
    const id = await endpoints.find(name, { workspaceId });
    const [view] = id === undefined ? [] : await endpoints.views([id]);
    if (view === undefined) throw unknownEndpoint(name);
    return view;
  };
  return {
    async deployEndpoint({ name, spec, force }, context) {
      const workspaceId = workspaceOf(context);
      checkName(name);
      const resolved = await resolve(dependencies, workspaceId, spec);
      const { endpointId, deployment, made } = await endpoints.deploy({
        workspaceId,
        name,
        spec: resolved,
        force,
      });
      if (made) log.info("endpoint deployed", { endpoint: name, version: deployment.version });
      const [view] = await endpoints.views([endpointId]);
      if (view === undefined) throw unknownEndpoint(name);
      return { endpoint: wire(view), deployment: toWireDeployment(deployment) };
    },
    async getEndpoint({ name }, context) {
      return { endpoint: wire(await found(workspaceOf(context), name)) };
    },
    async listEndpoints(_, context) {
      return { endpoints: (await endpoints.viewsOf(workspaceOf(context))).map(wire) };
    },
    async *watchEndpoint({ name }, context) {
      const { id } = await found(workspaceOf(context), name);
      let last = "";
      for await (const _ of changes.of(id, context.signal)) {
        const [view] = await endpoints.views([id]);
        if (view === undefined) return;
        const endpoint = wire(view);
        const text = JSON.stringify(endpoint, (_, value) =>
          typeof value === "bigint" ? Number(value) : value,
        );
        if (text !== last) yield { endpoint };
        last = text;
      }
    },
    async deleteEndpoint({ name }, context) {
      checkName(name);
      const id = await endpoints.delete(workspaceOf(context), name);
      if (id === undefined) return {};
      const [view] = await endpoints.views([id]);
      log.info("endpoint is to be removed", { endpoint: name });
      return view === undefined ? {} : { endpoint: wire(view) };
    },
  };
}

/** What is to be deployed, with every default worked out, once it is sure that containers of it can be queued. */
async function resolve(
  { images, limits, policyOf }: EndpointServiceDependencies,
  workspaceId: string,
  wire: WireSpec | undefined,
): Promise<EndpointSpec> {
  if (wire === undefined || wire.image === "")
    throw new EndpointError("bad_spec", "no image is named", {
      next: "Name one that the workspace has built.",
    });
  const policy = await policyOf(workspaceId);
  const network = fromWireNetwork(wire.network) ?? policy.defaultNetwork;
  const image = await findImage(images, workspaceId, wire.image);
  const spec = resolveSpec(
    fromWireSpec(wire, { imageId: image.id, reference: image.reference, network }),
    limits,
  );
  checkSpec(containerOf(spec, { id: "", workspaceId }));
  checkAllowed(policy, network, spec.options);
  return spec;
}
