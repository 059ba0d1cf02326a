import type { Config } from "../config.ts";
import type { NetworkSettings } from "../runtime/network/settings.ts";

/** `[worker.network]` as the runtime has it. */
export function networkSettings(configured: Config["worker"]["network"]): NetworkSettings {
  const { subnet, cni_path: cniPath, dns, deny, allow_host: allowHost, connections_max, mtu } = configured;
  return { subnet, cniPath, dns, deny, allowHost, connectionsMax: connections_max, mtu };
}
