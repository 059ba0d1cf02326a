import {
  type ContainerOptions,
  PortProtocol,
  type PublishedPort,
  RestartKind,
} from "../gen/oci_node/v1/container_options_pb.ts";
import { type Container, Network } from "../gen/oci_node/v1/container_service_pb.ts";

/** What a container was run with and has of the network; its environment is not shown. */
export function howItRuns(container: Container) {
  const { options } = container;
  return {
    cpuMillis: container.cpuMillis || null,
    memoryBytes: Number(container.memoryBytes) || null,
    network: Network[container.network]?.toLowerCase() ?? "none",
    address: container.address || null,
    ports: container.ports.map(portShape),
    restarts: container.restarts,
    deployment: container.deploymentId || null,
    options: options === undefined ? null : optionsShape(options),
  };
}

/** `127.0.0.1:8080->80`, with `/udp` where it is that. */
export function portText(port: PublishedPort): string {
  const { hostAddress, hostPort, containerPort, protocol } = portShape(port);
  return `${hostAddress}:${hostPort}->${containerPort}${protocol === "udp" ? "/udp" : ""}`;
}

function portShape({ hostAddress, hostPort, containerPort, protocol }: PublishedPort) {
  return {
    hostAddress,
    hostPort,
    containerPort,
    protocol: protocol === PortProtocol.UDP ? "udp" : "tcp",
  };
}

function optionsShape(options: ContainerOptions) {
  const { restart } = options;
  return {
    entrypoint: options.entrypoint?.words ?? null,
    workingDirectory: options.workingDirectory || null,
    user: options.user || null,
    readOnly: options.readOnly,
    tmpfs: options.tmpfs.map(({ path, sizeBytes, mode }) => ({
      path,
      sizeBytes: Number(sizeBytes),
      mode: mode.toString(8).padStart(4, "0"),
    })),
    volumes: options.volumes.map(({ source, target, readOnly }) => ({ source, target, readOnly })),
    ports: options.ports.map(portShape),
    secrets: options.secrets.map(({ secretName, as }) => ({
      secret: secretName,
      variable: as.case === "variable" ? as.value : null,
      path: as.case === "path" ? as.value : null,
    })),
    pidsLimit: options.pidsLimit || null,
    storageBytes: Number(options.storageBytes) || null,
    restart: restartText(restart?.kind, restart?.retriesMax),
    stopTimeoutMs: options.stopTimeoutMs || null,
    terminal: options.terminal,
    stdin: options.stdin,
  };
}

function restartText(kind = RestartKind.NO, retriesMax = 0): string {
  if (kind === RestartKind.ALWAYS) return "always";
  if (kind !== RestartKind.ON_FAILURE) return "no";
  return retriesMax === 0 ? "on-failure" : `on-failure:${retriesMax}`;
}
