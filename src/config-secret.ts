/**
 * The first setting of a configuration that holds a secret by itself: a URL with a password, or a plugin's environment.
 * Asked before anything of it is checked.
 */
export function secretSetting(settings: unknown): string | undefined {
  const { database, registry, identities } = recordOf(settings);
  const { proxy, hosts } = recordOf(registry);
  const urls: [name: string, url: unknown][] = [
    ["database.url", recordOf(database)["url"]],
    ["registry.proxy", proxy],
    ...Object.entries(recordOf(hosts)).map(([host, of]): [string, unknown] => [
      `registry.hosts."${host}".proxy`,
      recordOf(of)["proxy"],
    ]),
  ];
  const url = urls.find(([, text]) => typeof text === "string" && (URL.parse(text)?.password ?? "") !== "");
  if (url !== undefined) return url[0];
  const plugin = Object.entries(recordOf(identities)).find(
    ([, identity]) => Object.keys(recordOf(recordOf(identity)["env"])).length > 0,
  );
  return plugin === undefined ? undefined : `identities.${plugin[0]}.env`;
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
