import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import {
  ImageCredentialSchema,
  CredentialDelivery as WireDelivery,
  type ImageCredential as WireImageCredential,
} from "../gen/oci_node/v1/image_credential_pb.ts";
import type { CredentialDelivery, ImageCredential } from "./image-credential.ts";

const wireDeliveries: Readonly<Record<CredentialDelivery, WireDelivery>> = {
  none: WireDelivery.NONE,
  minted: WireDelivery.MINTED,
  sealed: WireDelivery.SEALED,
};

const deliveries = new Map(
  Object.entries(wireDeliveries).map(([delivery, wire]) => [wire, delivery as CredentialDelivery]),
);

export function toWireImageCredential(credential: ImageCredential): WireImageCredential {
  const { validUntil, renewAt } = credential;
  return create(ImageCredentialSchema, {
    delivery: wireDeliveries[credential.delivery],
    secretName: credential.secretName ?? "",
    secretId: credential.secretId ?? "",
    secretVersion: credential.secretVersion ?? 0,
    identity: credential.identity ?? "",
    type: credential.type ?? "",
    scope: credential.scope ?? "",
    sealedReason: credential.sealedReason ?? "",
    givenAt: timestampFromDate(credential.givenAt),
    ...(validUntil === undefined ? {} : { validUntil: timestampFromDate(validUntil) }),
    ...(renewAt === undefined ? {} : { renewAt: timestampFromDate(renewAt) }),
  });
}

/** `undefined` from a scheduler that says nothing of it, and for deliveries of a newer version. */
export function fromWireImageCredential(wire: WireImageCredential | undefined): ImageCredential | undefined {
  const delivery = wire === undefined ? undefined : deliveries.get(wire.delivery);
  if (wire === undefined || delivery === undefined) return undefined;
  const date = (time: Timestamp | undefined) => (time === undefined ? undefined : timestampDate(time));
  return {
    delivery,
    givenAt: date(wire.givenAt) ?? new Date(),
    secretName: wire.secretName || undefined,
    secretId: wire.secretId || undefined,
    secretVersion: wire.secretVersion || undefined,
    identity: wire.identity || undefined,
    type: wire.type || undefined,
    scope: wire.scope || undefined,
    validUntil: date(wire.validUntil),
    renewAt: date(wire.renewAt),
    sealedReason: wire.sealedReason || undefined,
  };
}
