import { readConfig } from "../config.ts";
import { networkSettings } from "../role/network-settings.ts";
import { probeNetwork } from "../runtime/network/probe.ts";
import { defaultNetworkSettings, type NetworkSettings } from "../runtime/network/settings.ts";
import type { Finding } from "./finding.ts";

/** Whether containers can have networks of their own here; without, they run with `--network none`. */
export async function checkNetwork(config: string | undefined): Promise<Finding[]> {
  const { found, problems, warnings } = await probeNetwork(settingsIn(config));
  const check = "network";
  if (problems.length === 0) {
    const words = [...found, ...warnings].join("; ");
    return [{ check, state: warnings.length === 0 ? "ok" : "limited", found: words }];
  }
  return problems.map((problem) => ({
    check,
    state: "limited",
    found: problem.found,
    ...(problem.next === undefined ? {} : { next: problem.next }),
  }));
}

/** Of a configuration that does not hold, its own check tells. */
function settingsIn(config: string | undefined): NetworkSettings {
  if (config === undefined) return defaultNetworkSettings;
  try {
    return networkSettings(readConfig(config).worker.network);
  } catch {
    return defaultNetworkSettings;
  }
}
