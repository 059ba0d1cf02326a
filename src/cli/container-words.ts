import { tmpfsModeDefault, tmpfsSizeBytesDefault } from "../container/options.ts";
import { PortProtocol, RestartKind } from "../gen/oci_node/v1/container_options_pb.ts";
import { parseSize } from "../std/size.ts";

/** `[ADDRESS:][HOST:]CONTAINER[/udp]`. @throws SyntaxError */
export function parsePublish(text: string) {
  const match = /^(?:(?:(\d+(?:\.\d+){3}):)?(\d{0,5}):)?(\d{1,5})(?:\/(tcp|udp))?$/.exec(text);
  if (match === null)
    throw new SyntaxError(`${JSON.stringify(text)} is no [ADDRESS:][HOST:]CONTAINER[/udp], such as 8080:80`);
  const [, hostAddress = "", hostPort = "", containerPort, protocol] = match;
  return {
    hostAddress,
    hostPort: Number(hostPort),
    containerPort: Number(containerPort),
    protocol: protocol === "udp" ? PortProtocol.UDP : PortProtocol.TCP,
  };
}

/** `SOURCE:TARGET[:ro]`. @throws SyntaxError */
export function parseVolume(text: string) {
  const [source = "", target = "", mode, ...more] = text.split(":");
  const known = mode === undefined || mode === "ro" || mode === "rw";
  if (source === "" || target === "" || !known || more.length > 0)
    throw new SyntaxError(`${JSON.stringify(text)} is no SOURCE:TARGET[:ro], such as data:/var/lib/data`);
  return { source, target, readOnly: mode === "ro" };
}

/** `PATH[:size=64Mi,mode=1777]`. @throws SyntaxError */
export function parseTmpfs(text: string) {
  const at = text.indexOf(":");
  const path = at < 0 ? text : text.slice(0, at);
  let sizeBytes = tmpfsSizeBytesDefault;
  let mode = tmpfsModeDefault;
  for (const part of at < 0 ? [] : text.slice(at + 1).split(",")) {
    const [key, value = ""] = part.split("=");
    const size = key === "size" ? parseSize(value) : undefined;
    if (size !== undefined) sizeBytes = size;
    else if (key === "mode" && /^[0-7]{3,5}$/.test(value)) mode = Number.parseInt(value, 8);
    else throw new SyntaxError(`${JSON.stringify(text)} is no PATH[:size=64Mi,mode=1777]`);
  }
  return { path, sizeBytes: BigInt(sizeBytes), mode };
}

/** `no`, `always`, `on-failure[:N]`. @throws SyntaxError */
export function parseRestart(text: string) {
  const retries = /^on-failure(?::(\d{1,9}))?$/.exec(text);
  if (retries !== null) return { kind: RestartKind.ON_FAILURE, retriesMax: Number(retries[1] ?? 0) };
  if (text === "always") return { kind: RestartKind.ALWAYS, retriesMax: 0 };
  if (text === "no") return { kind: RestartKind.NO, retriesMax: 0 };
  throw new SyntaxError(`${JSON.stringify(text)} is none of no, always, on-failure, on-failure:N`);
}

/** `NAME[=VARIABLE]`. @throws SyntaxError */
export function parseSecretVariable(text: string) {
  const at = text.indexOf("=");
  const secretName = at < 0 ? text : text.slice(0, at);
  const variable = at < 0 ? text : text.slice(at + 1);
  if (secretName === "") throw new SyntaxError(`${JSON.stringify(text)} is no SECRET=VARIABLE`);
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(variable))
    throw new SyntaxError(`${JSON.stringify(variable)} is no name of a variable: write SECRET=VARIABLE`);
  return { secretName, as: { case: "variable" as const, value: variable } };
}

/** `NAME[:PATH]`. @throws SyntaxError */
export function parseSecretFile(text: string) {
  const at = text.indexOf(":");
  const secretName = at < 0 ? text : text.slice(0, at);
  const path = at < 0 ? `/run/secrets/${text}` : text.slice(at + 1);
  if (secretName === "" || path === "") throw new SyntaxError(`${JSON.stringify(text)} is no SECRET[:PATH]`);
  return { secretName, as: { case: "path" as const, value: path } };
}

/** @throws RangeError */
export function parseCpu(text: string): number {
  const cpus = Number(text);
  if (!(cpus > 0 && cpus <= 4096)) throw new RangeError(`${JSON.stringify(text)} is no number of CPUs`);
  return cpus;
}

/** @throws RangeError */
export function parseMemory(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined || bytes < 4 * 1024 * 1024)
    throw new RangeError(`${JSON.stringify(text)} is no memory size of at least 4Mi`);
  return bytes;
}

/** @throws RangeError */
export function parseStorage(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined || bytes < 16 * 1024 * 1024)
    throw new RangeError(`${JSON.stringify(text)} is no size of at least 16Mi`);
  return bytes;
}

/** @throws RangeError */
export function parseCount(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new RangeError(`${JSON.stringify(text)} is no whole number from 1 on`);
  return Number(text);
}

/** @throws RangeError */
export function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (text.trim() === "" || !(seconds >= 0 && seconds <= 3600))
    throw new RangeError(`${JSON.stringify(text)} is no number of seconds up to 3600`);
  return seconds;
}
