import { describe, expect, test } from "bun:test";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Container, ContainerSchema, ContainerState } from "../gen/oci_node/v1/container_service_pb.ts";
import { containerShape } from "./shape.ts";

function container(endsInMs: number, complete: boolean, state = ContainerState.RUNNING): Container {
  return create(ContainerSchema, {
    state,
    transfer: { complete },
    imageCredential: { validUntil: timestampFromMs(Date.now() + endsInMs) },
  });
}

const noteOf = (of: Container) => containerShape(of).imageCredential?.note;

describe("of a credential that is over is told", () => {
  test("that it is no trouble where all of the image is there, so that nothing asks for the next", () => {
    expect(noteOf(container(-60_000, true))).toContain("all of the image is on the worker");
    expect(noteOf(container(60_000, true))).toBeNull();
  });

  test("that the container is over as well", () => {
    expect(noteOf(container(-60_000, false, ContainerState.STOPPED))).toBe("over, as the container is");
  });

  test("that there is trouble where something has to be fetched still", () => {
    expect(noteOf(container(-60_000, false))).toContain("the events say why");
    expect(noteOf(container(60_000, false))).toBeNull();
  });
});
