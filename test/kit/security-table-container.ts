import type { Attack } from "./security-table.ts";

export const reachesOut: Attack = {
  attack: "the program in the container reaches out of it",
  defences: [
    [
      "a user namespace of its own: its root is nobody on the host, nor in another container",
      "src/runtime/files/user-namespace.test.ts: a container's root is nobody on the host, and no other container's root either",
      "test/journey/main-job.test.ts: a container sees its own processes, a loopback, and a layer of its own to write to",
    ],
    [
      "directories of the host are the operator's to allow, looked at where they lead; volumes are the workspace's own",
      "src/runtime/files/volumes.test.ts: is refused where the operator did not allow it, however it is written",
      "src/runtime/files/volumes.test.ts: is its workspace's own, and others of the name are others",
      "src/runtime/files/volumes.test.ts: cannot be named so that it is elsewhere",
    ],
    [
      "its network leads to the world alone: not to the host, its neighbours, or metadata services; with no source but its own",
      "src/runtime/network/network.test.ts: reaches neither the host, nor another container, nor what the operator denies",
      "src/runtime/network/network.test.ts: lets no packet pass that says it is another's, and none to the host's loopback",
      "src/runtime/network/firewall.test.ts: makes its rules whole, once, again when they were lost, and takes away no others",
      "src/runtime/network/firewall.test.ts: refuses what is denied, but for names that are resolved there; lets to the host where the operator allows",
    ],
    [
      "what the worker shows it is to be read alone, without setuid bits and devices",
      "src/runtime/container-options.test.ts: shows the worker's own files, to be read alone and never to gain by, wherever the image's links lead",
    ],
    [
      "its own namespaces, Docker's capabilities and filter, no descriptor of ours, the host's network by leave only",
      "src/runtime/runtime.test.ts: denies what the filter denies, with Docker's capabilities",
      "src/runtime/runtime.test.ts: hands no descriptor of ours to the container or its monitor",
      "src/runtime/runtime.test.ts: reads an image whose files are links that lead out",
      "test/journey/tenants.test.ts: the host's network is for the workspace that the operator allows it",
    ],
  ],
};

export const takesAll: Attack = {
  attack: "a container takes what others need: disk, processes, memory",
  defences: [
    [
      "what each writes is limited, each by itself",
      "src/runtime/files/writable-layer.test.ts: a container that fills its layer is told so, and so is whoever looks why it ended; another goes on",
      "test/journey/full-disk.test.ts: a container that fills its disk hurts nobody else, and the node goes on",
    ],
    [
      "processes and memory are limited, its own file systems in memory included",
      "src/runtime/runtime.test.ts: limits processors and processes",
      "src/runtime/runtime.test.ts: tells a container that had no memory left from one that was killed",
      "src/runtime/container-options.test.ts: a root that cannot be written, with memory where the container may write",
    ],
  ],
};
