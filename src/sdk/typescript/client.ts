import { readFileSync } from "node:fs";
import { rootCertificates } from "node:tls";
import { type Client, createClient } from "@connectrpc/connect";
import { assertSafe, readContext } from "../../cli/context.ts";
import { ContainerService } from "../../gen/oci_node/v1/container_service_pb.ts";
import { EndpointService } from "../../gen/oci_node/v1/endpoint_service_pb.ts";
import { ImageService } from "../../gen/oci_node/v1/image_service_pb.ts";
import { SecretService } from "../../gen/oci_node/v1/secret_service_pb.ts";
import { TokenService } from "../../gen/oci_node/v1/token_service_pb.ts";
import { transportTo } from "../../rpc/transport.ts";

export { ConnectError } from "@connectrpc/connect";
export {
  ContainerState,
  LogStream,
  Network,
  type RunContainerRequest,
} from "../../gen/oci_node/v1/container_service_pb.ts";
export { DeploymentState, type EndpointSpec } from "../../gen/oci_node/v1/endpoint_service_pb.ts";
export { type ErrorDetail, ErrorDetailSchema } from "../../gen/oci_node/v1/error_pb.ts";
export type { Image } from "../../gen/oci_node/v1/image_service_pb.ts";

/** Where a node is and what opens it. */
export interface ConnectOptions {
  /** `https://host:port`; `http://` for this machine alone. */
  readonly url: string;
  /** Of a workspace. */
  readonly token: string;
  /** PEM of authorities that the gateway's certificate may come from, beside the system's. */
  readonly ca?: string | readonly string[];
}

/** The node's API, a client for each service: https://connectrpc.com/docs/web/using-clients. */
export interface OciNode {
  readonly images: Client<typeof ImageService>;
  readonly containers: Client<typeof ContainerService>;
  readonly endpoints: Client<typeof EndpointService>;
  readonly secrets: Client<typeof SecretService>;
  readonly tokens: Client<typeof TokenService>;
}

/**
 * Clients of a node. Without options: the one that `OCI_NODE_URL`, `OCI_NODE_TOKEN` and `OCI_NODE_CA_FILE` name, or that
 * `oci-node dev` started on this machine. Nothing is sent before the first call; calls throw {@link ConnectError}, whose
 * details hold an {@link ErrorDetail} with the node's own code and next step.
 *
 * @throws CliError where no node is known, or the token would cross a network in the clear
 */
export function connect(options?: ConnectOptions): OciNode {
  const { url, token, ca } = options ?? fromContext();
  assertSafe(url);
  const authorities = ca === undefined ? {} : { ca: [...rootCertificates, ...[ca].flat()] };
  const transport = transportTo({ url, token, ...authorities });
  return {
    images: createClient(ImageService, transport),
    containers: createClient(ContainerService, transport),
    endpoints: createClient(EndpointService, transport),
    secrets: createClient(SecretService, transport),
    tokens: createClient(TokenService, transport),
  };
}

function fromContext(): ConnectOptions {
  const { url, token, caFile } = readContext();
  return { url, token, ...(caFile === undefined ? {} : { ca: readFileSync(caFile, "utf8") }) };
}
