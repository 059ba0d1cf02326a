import { create } from "@bufbuild/protobuf";
import {
  ContainerOptionsSchema,
  PortProtocol,
  PublishedPortSchema,
  RestartKind,
  type ContainerOptions as WireOptions,
  type PublishedPort as WirePort,
} from "../gen/oci_node/v1/container_options_pb.ts";
import {
  type ContainerOptions,
  defaultOptions,
  type PublishedPort,
  type RestartPolicy,
  tmpfsModeDefault,
  tmpfsSizeBytesDefault,
} from "./options.ts";

const restartKinds = {
  no: RestartKind.NO,
  "on-failure": RestartKind.ON_FAILURE,
  always: RestartKind.ALWAYS,
} as const satisfies Record<RestartPolicy["kind"], RestartKind>;

/** Options as a request names them; what it leaves out stays at its default. Nothing is checked: see `checkOptions`. */
export function fromWireOptions(wire: WireOptions | undefined): ContainerOptions {
  if (wire === undefined) return defaultOptions;
  return {
    ...(wire.entrypoint === undefined ? {} : { entrypoint: wire.entrypoint.words }),
    workingDirectory: wire.workingDirectory,
    user: wire.user,
    readOnly: wire.readOnly,
    tmpfs: wire.tmpfs.map(({ path, sizeBytes, mode }) => ({
      path,
      sizeBytes: Number(sizeBytes) || tmpfsSizeBytesDefault,
      mode: mode || tmpfsModeDefault,
    })),
    volumes: wire.volumes.map(({ source, target, readOnly }) => ({ source, target, readOnly })),
    ports: wire.ports.map(fromWirePort),
    secrets: wire.secrets.map(({ secretName, as }) => ({
      secretName,
      ...(as.case === "variable" ? { variable: as.value } : {}),
      ...(as.case === "path" ? { path: as.value } : {}),
    })),
    pidsLimit: wire.pidsLimit,
    storageBytes: Number(wire.storageBytes),
    restart: {
      kind: kindOf(wire.restart?.kind),
      retriesMax: wire.restart?.retriesMax ?? 0,
    },
    stopTimeoutMs: wire.stopTimeoutMs,
    terminal: wire.terminal,
    stdin: wire.stdin,
  };
}

export function toWireOptions(options: ContainerOptions): WireOptions {
  const { entrypoint, tmpfs, volumes, ports, secrets, restart, storageBytes, ...plain } = options;
  return create(ContainerOptionsSchema, {
    ...plain,
    ...(entrypoint === undefined ? {} : { entrypoint: { words: [...entrypoint] } }),
    tmpfs: tmpfs.map(({ path, sizeBytes, mode }) => ({ path, sizeBytes: BigInt(sizeBytes), mode })),
    volumes: volumes.map((volume) => ({ ...volume })),
    ports: ports.map(toWirePort),
    secrets: secrets.map(({ secretName, variable, path }) => ({
      secretName,
      as:
        variable === undefined
          ? { case: "path" as const, value: path ?? "" }
          : { case: "variable" as const, value: variable },
    })),
    storageBytes: BigInt(storageBytes),
    restart: { kind: restartKinds[restart.kind], retriesMax: restart.retriesMax },
  });
}

export function fromWirePort({ hostAddress, hostPort, containerPort, protocol }: WirePort): PublishedPort {
  return {
    hostAddress: hostAddress || "127.0.0.1",
    hostPort,
    containerPort,
    protocol: protocol === PortProtocol.UDP ? "udp" : "tcp",
  };
}

export function toWirePort(port: PublishedPort): WirePort {
  return create(PublishedPortSchema, {
    ...port,
    protocol: port.protocol === "udp" ? PortProtocol.UDP : PortProtocol.TCP,
  });
}

function kindOf(kind: RestartKind | undefined): RestartPolicy["kind"] {
  if (kind === RestartKind.ALWAYS) return "always";
  return kind === RestartKind.ON_FAILURE ? "on-failure" : "no";
}
