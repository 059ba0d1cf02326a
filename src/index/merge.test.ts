import { expect, test } from "bun:test";
import { IndexError } from "./error.ts";
import { defaultIndexLimits } from "./limits.ts";
import { mergeLayers } from "./merge.ts";
import { PathFinder } from "./merge-path.ts";
import { inodeOf, Tree } from "./tree.ts";
import { inodeTypes } from "./tree-inode.ts";
import { indexTestLayer, type TestEntry, type TestLayer } from "./tree-layers.test-kit.ts";

const file = (path: string, content = path): TestEntry => ({ path, type: "file", content });
const dir = (path: string, more: Partial<TestEntry> = {}): TestEntry => ({ path, type: "dir", ...more });
const symlink = (path: string, link: string): TestEntry => ({ path, type: "symlink", link });
const hardlink = (path: string, link: string): TestEntry => ({ path, type: "hardlink", link });
const gone = (path: string): TestEntry => {
  const cut = path.lastIndexOf("/") + 1;
  return { path: `${path.slice(0, cut)}.wh.${path.slice(cut)}`, type: "file" };
};
const opaque = (path: string): TestEntry => ({
  path: path === "" ? ".wh..wh..opq" : `${path}/.wh..wh..opq`,
  type: "file",
});

function merge(...layers: TestLayer[]): Tree {
  return mergeLayers(layers.map((layer) => indexTestLayer(layer).toc));
}

/** Every path with what it is: directories end in `/`, files show their layer and size, links their target. */
function listing(tree: Tree): string[] {
  const lines: string[] = [];
  const visit = (directory: number, path: string) => {
    for (const [name, entry] of tree.entries(directory)) {
      const inode = inodeOf(entry);
      const here = `${path}${name}`;
      if (tree.isDirectory(inode)) {
        lines.push(`${here}/`);
        visit(inode, `${here}/`);
      } else if (tree.typeOf(inode) === inodeTypes.symlink) lines.push(`${here} -> ${tree.links.get(inode)}`);
      else lines.push(`${here} ${(tree.layer[inode] ?? 0) + 1}:${tree.size[inode]}`);
    }
  };
  visit(tree.root, "");
  return lines.sort();
}

function inodeAt(tree: Tree, path: string): number {
  return path.split("/").reduce((inode, name) => inodeOf(tree.entry(inode, name) ?? -1), tree.root);
}

function failure(call: () => unknown): IndexError {
  try {
    call();
  } catch (error) {
    if (error instanceof IndexError) return error;
    throw error;
  }
  throw new Error("it did not fail");
}

test("a whiteout removes a file and a whole directory of lower layers", () => {
  const tree = merge([dir("d"), file("d/a"), file("d/b"), dir("e"), file("e/x")], [gone("d/a"), gone("e")]);
  expect(listing(tree)).toEqual(["d/", "d/b 1:3"]);
});

test("a whiteout spares what its own layer has, whether it comes before or after", () => {
  const lower = [dir("d"), file("d/old"), file("f", "old")];
  const before = merge(lower, [gone("d"), gone("f"), file("d/new"), file("f", "newer")]);
  const after = merge(lower, [file("d/new"), file("f", "newer"), gone("d"), gone("f")]);
  expect(listing(before)).toEqual(["d/", "d/new 2:5", "f 2:5"]);
  expect(listing(after)).toEqual(listing(before));
});

test("a directory that is whited out and used again loses the metadata of lower layers in any order", () => {
  const lower = [dir("d", { mode: 0o700, uid: 7, xattrs: { "user.a": "1" } })];
  for (const layer of [
    [gone("d"), file("d/x")],
    [file("d/x"), gone("d")],
  ]) {
    const tree = merge(lower, layer);
    const inode = inodeAt(tree, "d");
    expect([tree.mode[inode], tree.uid[inode], tree.xattrs.get(inode)]).toEqual([0o040755, 0, undefined]);
  }
  const described = merge(lower, [dir("d", { mode: 0o711 }), file("d/x"), gone("d")]);
  expect(described.mode[inodeAt(described, "d")]).toBe(0o040711);
});

test("an opaque directory hides lower entries at every depth but not those of its layer, in any order", () => {
  const lower = [dir("d"), file("d/a"), dir("d/s"), file("d/s/x"), dir("d/t"), file("d/t/y")];
  const upper = [dir("d"), dir("d/s"), file("d/s/new"), file("d/b")];
  const expected = ["d/", "d/b 2:3", "d/s/", "d/s/new 2:7"];
  expect(listing(merge(lower, [opaque("d"), ...upper]))).toEqual(expected);
  expect(listing(merge(lower, [...upper, opaque("d")]))).toEqual(expected);
  expect(listing(merge(lower, [...upper.slice(0, 2), opaque("d"), ...upper.slice(2)]))).toEqual(expected);
});

test("an opaque directory keeps the metadata that a lower layer gave it", () => {
  const tree = merge([dir("d", { mode: 0o700 }), file("d/a")], [opaque("d"), file("d/b")]);
  expect(tree.mode[inodeAt(tree, "d")]).toBe(0o040700);
});

test("an opaque root hides all lower layers", () => {
  expect(listing(merge([dir("a"), file("a/b"), file("c")], [file("n"), opaque("")]))).toEqual(["n 2:1"]);
});

test("whiteouts of what is not there do nothing", () => {
  expect(listing(merge([file("a")], [gone("b"), gone("x/y"), gone("a/b"), opaque("q")]))).toEqual(["a 1:1"]);
});

test("what a layer removed can come back in a higher one", () => {
  expect(listing(merge([dir("d"), file("d/a")], [gone("d")], [dir("d"), file("d/c")]))).toEqual([
    "d/",
    "d/c 3:3",
  ]);
});

test("a file replaces a directory and a directory replaces a file", () => {
  expect(listing(merge([dir("d"), file("d/a")], [file("d", "x")]))).toEqual(["d 2:1"]);
  expect(listing(merge([file("d", "x")], [dir("d"), file("d/a")]))).toEqual(["d/", "d/a 2:3"]);
  expect(listing(merge([dir("d"), file("d/a")], [file("d", "x")], [dir("d")]))).toEqual(["d/"]);
});

test("a directory that is described again keeps what is in it and takes the new metadata, attributes included", () => {
  const tree = merge(
    [dir("d", { mode: 0o700, uid: 5, mtime: [1, 2], xattrs: { "user.a": "1" } }), file("d/a")],
    [dir("d", { mode: 0o1777, gid: 6, mtime: [-3, 4], xattrs: { "user.b": "2" } })],
  );
  const inode = inodeAt(tree, "d");
  expect(listing(tree)).toEqual(["d/", "d/a 1:3"]);
  expect([tree.mode[inode], tree.uid[inode], tree.gid[inode]]).toEqual([0o041777, 0, 6]);
  expect([tree.mtimeSeconds[inode], tree.mtimeNanos[inode]]).toEqual([-3, 4]);
  expect(tree.xattrs.get(inode)?.map(([name]) => name)).toEqual(["user.b"]);
});

test("the last of several entries with one name wins", () => {
  expect(listing(merge([file("a", "1"), file("a", "22"), symlink("b", "a"), file("b", "333")]))).toEqual([
    "a 1:2",
    "b 1:3",
  ]);
});

test("directories that no entry describes are 0755, root's, of 1970", () => {
  const tree = merge([file("a/b/c")]);
  const inode = inodeAt(tree, "a/b");
  expect([tree.mode[inode], tree.uid[inode], tree.gid[inode], tree.mtimeSeconds[inode]]).toEqual([
    0o040755, 0, 0, 0,
  ]);
  expect(tree.mode[tree.root]).toBe(0o040755);
});

test("an implied parent keeps the metadata that a lower layer gave it", () => {
  const tree = merge([dir("a", { mode: 0o700, uid: 3 })], [file("a/b")]);
  expect([tree.mode[inodeAt(tree, "a")], tree.uid[inodeAt(tree, "a")]]).toEqual([0o040700, 3]);
});

test("a path that needs a directory where a lower layer has a file gets one", () => {
  expect(listing(merge([file("a")], [file("a/b")]))).toEqual(["a/", "a/b 2:3"]);
});

test("the root takes its metadata from its entry", () => {
  const tree = merge([dir("", { mode: 0o711, uid: 9 })]);
  expect([tree.mode[tree.root], tree.uid[tree.root]]).toEqual([0o040711, 9]);
});

test("entries below a symbolic link land where it leads", () => {
  const lower = [dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib"), symlink("abs", "/usr/lib")];
  const tree = merge(lower, [file("lib/x"), file("abs/y"), dir("lib/sub"), file("abs/sub/z")]);
  expect(listing(tree)).toEqual([
    "abs -> /usr/lib",
    "lib -> usr/lib",
    "usr/",
    "usr/lib/",
    "usr/lib/sub/",
    "usr/lib/sub/z 2:9",
    "usr/lib/x 2:5",
    "usr/lib/y 2:5",
  ]);
});

test("whiteouts and opaque markers go through symbolic links of their parents", () => {
  const lower = [
    dir("usr"),
    dir("usr/lib"),
    file("usr/lib/a"),
    dir("usr/lib/d"),
    file("usr/lib/d/x"),
    symlink("lib", "usr/lib"),
  ];
  expect(listing(merge(lower, [gone("lib/a"), opaque("lib/d")]))).toEqual([
    "lib -> usr/lib",
    "usr/",
    "usr/lib/",
    "usr/lib/d/",
  ]);
  expect(listing(merge(lower, [opaque("lib")]))).toEqual(["lib -> usr/lib", "usr/", "usr/lib/"]);
});

test("a whiteout of a symbolic link removes the link, not what it leads to", () => {
  expect(listing(merge([dir("d"), file("d/a"), symlink("l", "d")], [gone("l")]))).toEqual(["d/", "d/a 1:3"]);
});

test("a directory over a symbolic link to a directory replaces the link", () => {
  expect(listing(merge([dir("d"), file("d/a"), symlink("l", "d")], [dir("l"), file("l/b")]))).toEqual([
    "d/",
    "d/a 1:3",
    "l/",
    "l/b 2:3",
  ]);
});

test("a link that leads to nothing makes the directories that it names", () => {
  expect(listing(merge([symlink("l", "not/there")], [file("l/x")]))).toEqual([
    "l -> not/there",
    "not/",
    "not/there/",
    "not/there/x 2:3",
  ]);
});

test("links never lead out of the root", () => {
  const tree = merge([symlink("l", "../../../etc"), symlink("m", "/../..")], [file("l/x"), file("m/y")]);
  expect(listing(tree)).toEqual(["etc/", "etc/x 2:3", "l -> ../../../etc", "m -> /../..", "y 2:3"]);
});

test("a link that is replaced no longer leads anywhere", () => {
  const tree = merge([dir("a"), dir("b"), symlink("l", "a"), file("l/1"), symlink("l", "b"), file("l/2")]);
  expect(listing(tree)).toEqual(["a/", "a/1 1:3", "b/", "b/2 1:3", "l -> b"]);
});

test("links in a circle are refused when something is to be put below them", () => {
  const error = failure(() => merge([symlink("a", "b"), symlink("b", "a"), file("a/x")]));
  expect(error.code).toBe("bad_layer");
  expect(error.message).toContain('"a"');
  expect(listing(merge([symlink("a", "b"), symlink("b", "a")], [gone("a/x")]))).toEqual(["a -> b", "b -> a"]);
});

test("a path through a link to a file is refused", () => {
  expect(failure(() => merge([file("f"), symlink("l", "f"), file("l/x")])).code).toBe("bad_layer");
});

test("hardlinks share an inode, backward and forward within a layer", () => {
  const tree = merge([file("a"), hardlink("b", "a"), hardlink("c", "d"), file("d")]);
  expect(inodeAt(tree, "b")).toBe(inodeAt(tree, "a"));
  expect(inodeAt(tree, "c")).toBe(inodeAt(tree, "d"));
});

test("chains of hardlinks are followed in any order", () => {
  const tree = merge([
    hardlink("c", "b"),
    hardlink("b", "a"),
    hardlink("d", "c"),
    file("a"),
    hardlink("e", "d"),
  ]);
  for (const path of ["b", "c", "d", "e"]) expect(inodeAt(tree, path)).toBe(inodeAt(tree, "a"));
});

test("a chain of ten thousand hardlinks in the worst order is settled, or refused, in one walk", () => {
  const count = 10_000;
  const links = Array.from({ length: count }, (_, at) => hardlink(`l${at}`, `l${at + 1}`));
  const tree = merge([...links, file(`l${count}`)]);
  expect(inodeAt(tree, "l0")).toBe(inodeAt(tree, `l${count}`));
  expect(failure(() => merge(links)).code).toBe("bad_layer");
});

test("a hardlink to a waiting hardlink of a symbolic link leads through it", () => {
  const tree = merge([hardlink("x", "h/f"), hardlink("h", "s"), dir("d"), file("d/f"), symlink("s", "d")]);
  expect(inodeAt(tree, "x")).toBe(inodeAt(tree, "d/f"));
});

test("opaque markers without end are walked once", () => {
  const entries = Array.from({ length: 10_000 }, (_, at) => [file(`d/${at}`), opaque("d")]).flat();
  const tree = merge([file("d/old")], entries);
  expect(tree.entries(inodeAt(tree, "d")).size).toBe(10_000);
});

test("directories that only paths name are limited in number", () => {
  const finder = new PathFinder(new Tree(), { ...defaultIndexLimits, impliedDirectoriesMax: 100 });
  expect(finder.directory("d/".repeat(100).slice(0, -1), "make")).toBeGreaterThan(0);
  expect(failure(() => finder.directory("e", "make")).code).toBe("limit_exceeded");
});

test("a hardlink to a file of a lower layer shares its inode, which survives the removal of the first name", () => {
  const tree = merge([file("a")], [hardlink("b", "a")], [gone("a")]);
  expect(listing(tree)).toEqual(["b 1:1"]);
});

test("a hardlink that was made before its target is replaced keeps the old inode", () => {
  const tree = merge([file("a", "old")], [hardlink("b", "a"), file("a", "newer")]);
  expect(listing(tree)).toEqual(["a 2:5", "b 1:3"]);
});

test("a symbolic link has all permissions, whatever its entry says", () => {
  const { toc } = indexTestLayer([symlink("l", "x")]);
  const tree = mergeLayers([toc.map((entry) => ({ ...entry, mode: 0o4600 }))]);
  expect(tree.mode[inodeAt(tree, "l")]).toBe(0o120777);
});

test("a hardlink to a symbolic link is another name for the link itself", () => {
  const tree = merge([file("f"), symlink("l", "f"), hardlink("h", "l")]);
  expect(inodeAt(tree, "h")).toBe(inodeAt(tree, "l"));
});

test("the parents of a hardlink's target are resolved through links", () => {
  const tree = merge([
    dir("usr"),
    dir("usr/lib"),
    file("usr/lib/x"),
    symlink("lib", "usr/lib"),
    hardlink("y", "lib/x"),
  ]);
  expect(inodeAt(tree, "y")).toBe(inodeAt(tree, "usr/lib/x"));
});

test("a waiting hardlink whose name is given to something else is forgotten", () => {
  expect(listing(merge([hardlink("a", "nowhere"), file("a")]))).toEqual(["a 1:1"]);
});

test("a hardlink to nothing is refused by name", () => {
  const error = failure(() => merge([file("x")], [hardlink("a", "gone")]));
  expect(error.code).toBe("bad_layer");
  expect(error.message).toBe('layer 2: the hardlink "a" names "gone", which is not there');
  expect(failure(() => merge([hardlink("a", "b"), hardlink("b", "a")])).code).toBe("bad_layer");
});

test("a hardlink to a directory is refused", () => {
  expect(failure(() => merge([dir("d"), hardlink("a", "d")])).code).toBe("bad_layer");
  expect(failure(() => merge([hardlink("a", "d"), dir("d")])).code).toBe("bad_layer");
});

test("a character device 0:0 is a whiteout", () => {
  const layers: TestLayer[] = [[file("a"), file("b")], [{ path: "a", type: "char", device: [0, 0] }]];
  expect(listing(merge(...layers))).toEqual(["b 1:1"]);
});

test("attributes that would steer an overlay or that cannot be shown are left out and counted", () => {
  const xattrs = {
    "trusted.overlay.opaque": "y",
    "user.ok": "1",
    "btrfs.compression": "zstd",
    "security.selinux": "x",
  };
  const tree = merge([
    dir("d", { xattrs }),
    { path: "l", type: "symlink", link: "d", xattrs: { "user.no": "1", "trusted.t": "1" } },
  ]);
  expect(tree.xattrs.get(inodeAt(tree, "d"))?.map(([name]) => name)).toEqual(["user.ok"]);
  expect(tree.xattrs.get(inodeAt(tree, "l"))?.map(([name]) => name)).toEqual(["trusted.t"]);
  expect([...tree.xattrs.dropped.keys()].sort()).toEqual([
    "btrfs.compression",
    "security.selinux",
    "trusted.overlay.opaque",
    "user.no",
  ]);
});

test("an access control list that no engine could unpack is left out", () => {
  const sound = "0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff";
  const broken = [
    "",
    "02000000",
    sound.replace(/^02/, "01"),
    sound.slice(0, -2),
    sound.replace("10000600ffffffff", ""),
    sound.replace("01000600ffffffff", ""),
    sound.replace("20000400", "20000800"),
    sound.replace("20000400", "40000400"),
    `02000000${sound.slice(24)}${sound.slice(8, 24)}`,
  ];
  const listed = (hex: string): number => {
    const xattrs = { "system.posix_acl_access": Buffer.from(hex, "hex") };
    const tree = merge([{ path: "f", type: "file", xattrs }]);
    return tree.xattrs.get(inodeAt(tree, "f"))?.length ?? 0;
  };
  expect(listed(sound)).toBe(1);
  expect(broken.map(listed)).toEqual(broken.map(() => 0));
});

test("names and link targets that Linux cannot hold are refused", () => {
  expect(failure(() => merge([file("x".repeat(256))])).code).toBe("limit_exceeded");
  expect(failure(() => merge([symlink("l", "x".repeat(256)), file("l/a")])).code).toBe("limit_exceeded");
  expect(failure(() => merge([symlink("l", "x".repeat(4096))])).code).toBe("limit_exceeded");
  expect(failure(() => merge([{ path: "c", type: "char", device: [4096, 0] }])).code).toBe("limit_exceeded");
});

test("a deep path costs no more than as many directories side by side", () => {
  const cpuOf = (paths: number, depth: number): number => {
    const before = process.cpuUsage();
    merge(Array.from({ length: paths }, (_, at) => file(`${at}/${"d/".repeat(depth)}f`, "")));
    const { user, system } = process.cpuUsage(before);
    return user + system;
  };
  cpuOf(100, 100);
  const wide = cpuOf(2000, 100);
  expect(cpuOf(100, 2000)).toBeLessThan(2.5 * wide + 100_000);
});
