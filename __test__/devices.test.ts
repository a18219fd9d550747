/** Choosing a device in this process: setDevice, train({ device }), what is found, and refusals. Others: devicesApart. */
import {
  data,
  deviceInfo,
  loss,
  newton,
  nn,
  ones,
  optim,
  probeDevices,
  setDevice,
  type Tensor,
  tidy,
  train,
} from "raphson";
import { describe, expect, it } from "vitest";
import { thrown } from "./thrown";

type Batch = { readonly x: Tensor; readonly y: Tensor<"i32"> };

describe("setDevice", () => {
  it("opens a device, and says what it is", () => {
    const info = setDevice("cpu");
    expect(info).toMatchObject({ kind: "cpu", spec: "cpu", reason: "it was asked for" });
    expect(info.dtypes).toEqual(["f32", "f64", "i32", "u32", "bool", "f16", "bf16", "i64", "u8"]);
    expect(info.threads).toBeGreaterThan(0);
    expect(deviceInfo()).toEqual(info);
    expect(setDevice("auto"), "a device in use stays").toEqual(info);
  });

  it("refuses what is no device, and what is not there, with what is", () => {
    for (const wrong of ["gpu", "cpu:1", "cuda:-1", ""]) {
      const error = thrown(() => setDevice(wrong as "cpu"));
      expect([wrong, error.code, error.op]).toEqual([wrong, "ARGUMENT", "device"]);
    }
    expect(thrown(() => setDevice(3 as unknown as "cpu")).message).toMatch(/expected a name/);
    const error = thrown(() => setDevice("cuda:99"));
    expect(error.code).toBe("DEVICE");
    expect(error.message).toMatch(/On this machine: .*cpu .*doctor/);
    expect(deviceInfo().spec, "the old one goes on").toBe("cpu");
  });

  it("is too late while tensors or compiled functions are alive", () => {
    tidy(() => {
      const one = ones([2]);
      const error = thrown(() => setDevice("wgpu"));
      expect(error.code).toBe("DEVICE");
      expect(error.message).toContain("one tensor is alive");
      ones([1]);
      expect(thrown(() => setDevice("wgpu")).message).toContain("2 tensors are alive");
      expect(one.sum().item()).toBe(2);
    });
  });

  it("works before optimizers and rules are made, and after", () => {
    newton(optim.adamW());
    expect(setDevice("cpu").spec).toBe("cpu");
  });
});

describe("train({ device })", () => {
  const setting = () => {
    const model = nn.sequential(nn.linear(2, 3));
    return {
      model,
      loss: ({ x, y }: Batch, net: typeof model) => loss.crossEntropy(net(x), y),
      optimizer: newton(optim.sgd()),
      data: data.arrays({ x: { data: new Float32Array(8), shape: [4, 2] }, y: new Int32Array(4) }).batches(2),
      steps: 2,
    };
  };

  it("trains there", async () => {
    const run = await train({ ...setting(), device: "cpu" });
    expect(run.steps).toBe(2);
    expect(deviceInfo().spec).toBe("cpu");
  });

  it("refuses like setDevice", async () => {
    await expect(train({ ...setting(), device: "cuda:99" })).rejects.toMatchObject({ code: "DEVICE" });
    await expect(train({ ...setting(), device: "gpu" as "cpu" })).rejects.toMatchObject({ code: "ARGUMENT" });
  });
});

describe("probeDevices", () => {
  it("lists cuda, wgpu and cpu, each with a reason, and what a request comes to", () => {
    const { probes, chosen, error } = probeDevices("cpu");
    expect(error).toBeUndefined();
    expect(chosen).toBe("cpu");
    for (const kind of ["cuda", "wgpu", "cpu"]) expect(probes.some(({ spec }) => spec.startsWith(kind))).toBe(true);
    expect(probes.every(({ name, reason }) => name !== "" && reason !== "")).toBe(true);
    expect(probes.filter(({ outcome }) => outcome === "taken").map(({ spec }) => spec)).toEqual(["cpu"]);
  });

  it("says why a request cannot be met", () => {
    const { chosen, error } = probeDevices("cuda:99");
    expect(chosen).toBeUndefined();
    expect(error).toMatch(/GPU|driver/);
    expect(probeDevices("gpu" as "cpu").error).toMatch(/"gpu" is no device/);
  });
});
