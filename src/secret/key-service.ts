import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { type Key, KeySchema, type KeyService } from "../gen/oci_node/v1/key_service_pb.ts";
import type { ControlProcess } from "./key-process-store.ts";
import { type RotationDependencies, rotateKey } from "./key-rotation.ts";
import { type KeyRow, type KeyUsage, unknownKey } from "./key-store.ts";

/** Answers KeyService: names, counts and states of keys; the keys themselves never pass here. */
export function keyService(dependencies: RotationDependencies): ServiceImpl<typeof KeyService> {
  return {
    async listKeys() {
      return { keys: await listKeys(dependencies) };
    },
    async *rotateKey({ to }, context) {
      yield* rotateKey(dependencies, to, context.signal);
    },
    async retireKey({ id }) {
      await dependencies.keys.retire(id);
      const key = (await listKeys(dependencies)).find((each) => each.id === id);
      if (key === undefined) throw unknownKey(id);
      return { key };
    },
  };
}

async function listKeys({ ring, keys, processes }: RotationDependencies): Promise<Key[]> {
  await ring.reload();
  const [rows, usage, live] = await Promise.all([keys.list(), keys.usage(), processes.live()]);
  const known = rows.map((row) => wireKey(row, usage.get(row.id), live, placeOf(row.id)));
  // What nobody registered: rows of a key that no process has had since there are names for keys.
  const others = [...usage].filter(([id]) => !rows.some((row) => row.id === id));
  return [...known, ...others.map(([id, of]) => wireKey({ id }, of, live, ""))];

  function placeOf(id: string): string {
    return ring.held.find(({ key }) => key.id === id)?.place ?? "";
  }
}

function wireKey(
  row: Partial<KeyRow> & Pick<KeyRow, "id">,
  usage: KeyUsage | undefined,
  live: readonly ControlProcess[],
  place: string,
): Key {
  const { id, kind = "", primary = false, createdAt, exportedAt, retiredAt } = row;
  const without = live.filter(({ keyIds }) => !keyIds.includes(id));
  const message: MessageInitShape<typeof KeySchema> = {
    id,
    kind,
    primary,
    place,
    ...usage,
    ...(createdAt === undefined ? {} : { createdAt: timestampFromDate(createdAt) }),
    ...(exportedAt === undefined ? {} : { exportedAt: timestampFromDate(exportedAt) }),
    ...(retiredAt === undefined ? {} : { retiredAt: timestampFromDate(retiredAt) }),
    missingAt:
      retiredAt === undefined ? without.map(({ host, roles }) => `${host} (${roles.join(",")})`) : [],
  };
  return create(KeySchema, message);
}
