//! An XDP program of some twenty instructions, assembled here: gives the clicks of each frame new
//! ids and redirects the frame out of an interface. And the ELF object that carries it.
//!
//! By hand because it is shorter than a second eBPF crate, and its constants (offsets, interface) are
//! known only at run time. Instruction encoding: RFC 9669.

/// Registers.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R6: u8 = 6;
const R7: u8 = 7;
const R8: u8 = 8;

/// Helper numbers of the kernel (bpf.h).
const GET_PRANDOM_U32: i32 = 7;
const REDIRECT: i32 = 23;

/// One instruction.
const fn instruction(opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) -> u64 {
    opcode as u64 | ((src << 4 | dst) as u64) << 8 | (offset as u16 as u64) << 16 | (imm as u32 as u64) << 32
}

const fn move_register(dst: u8, src: u8) -> u64 {
    instruction(0xbf, dst, src, 0, 0)
}
const fn move_imm(dst: u8, imm: i32) -> u64 {
    instruction(0xb7, dst, 0, 0, imm)
}
const fn add_imm(dst: u8, imm: i32) -> u64 {
    instruction(0x07, dst, 0, 0, imm)
}
const fn load_u32(dst: u8, src: u8, offset: i16) -> u64 {
    instruction(0x61, dst, src, offset, 0)
}
const fn store_u64(dst: u8, offset: i16, src: u8) -> u64 {
    instruction(0x7b, dst, src, offset, 0)
}
const fn call(helper: i32) -> u64 {
    instruction(0x85, 0, 0, 0, helper)
}
const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

/// The program: writes the same eight random bytes at each of `ids`, then redirects to the interface.
/// What tells the clicks of one frame apart must stand in the frame already. A frame shorter than
/// `frame_len` is aborted.
#[must_use]
pub fn assemble(interface: u32, frame_len: usize, ids: &[usize]) -> Vec<u64> {
    let mut code = vec![
        move_register(R6, R1),
        load_u32(R7, R6, 0), // xdp_md.data
        load_u32(R3, R6, 4), // xdp_md.data_end
        move_register(R4, R7),
        add_imm(R4, frame_len as i32),
        0, // if r4 > r3 goto abort: patched below
        call(GET_PRANDOM_U32),
        move_register(R8, R0),
        instruction(0x67, R8, 0, 0, 32), // r8 <<= 32
        call(GET_PRANDOM_U32),
        instruction(0x4f, R8, R0, 0, 0), // r8 |= r0
    ];
    for &id in ids {
        code.push(store_u64(R7, id as i16, R8));
    }
    code.extend([move_imm(R1, interface as i32), move_imm(R2, 0), call(REDIRECT), EXIT]);
    let abort = code.len();
    code.extend([move_imm(R0, 0), EXIT]);
    let branch = 5;
    code[branch] = instruction(0x2d, R4, R3, (abort - branch - 1) as i16, 0);
    code
}

const SECTION_HEADER: usize = 64;

/// A section header of ELF64.
struct Section {
    name: u32,
    kind: u32,
    flags: u64,
    offset: u64,
    len: u64,
    /// Link and info.
    link: [u32; 2],
    entry: u64,
}

impl Section {
    fn write(&self, elf: &mut Vec<u8>) {
        elf.extend(self.name.to_le_bytes());
        elf.extend(self.kind.to_le_bytes());
        for long in [self.flags, 0, self.offset, self.len] {
            elf.extend(long.to_le_bytes());
        }
        self.link.iter().for_each(|half| elf.extend(half.to_le_bytes()));
        for long in [8, self.entry] {
            elf.extend(long.to_le_bytes()); // alignment, size of an entry
        }
    }
}

/// Wraps a program as an ELF object with one function in section `xdp`, named `generate`.
#[must_use]
pub fn object(code: &[u64]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0xdp\0.symtab\0.strtab\0generate\0";
    const XDP: u32 = 1;
    const SYMTAB: u32 = 5;
    const STRTAB: u32 = 13;
    const GENERATE: u32 = 21;
    const FILE_HEADER: u64 = 64;
    let code_len = code.len() as u64 * 8;
    let symbols_at = FILE_HEADER + code_len;
    let symbols_len = 2 * 24;
    let names_at = symbols_at + symbols_len;
    let sections_at = (names_at + NAMES.len() as u64).next_multiple_of(8);

    let mut elf = Vec::new();
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little-endian, version 1
    elf.extend(1_u16.to_le_bytes()); // relocatable
    elf.extend(247_u16.to_le_bytes()); // EM_BPF
    elf.extend(1_u32.to_le_bytes());
    elf.extend([0; 16]); // no entry, no program headers
    elf.extend(sections_at.to_le_bytes());
    elf.extend([0; 4]);
    for half in [64_u16, 0, 0, 64, 4, 3] {
        elf.extend(half.to_le_bytes()); // four section headers of 64 bytes, names in the last
    }
    code.iter().for_each(|word| elf.extend(word.to_le_bytes()));
    elf.extend([0; 24]); // the null symbol
    elf.extend(GENERATE.to_le_bytes());
    elf.extend([0x12, 0, 1, 0]); // global function in section 1
    elf.extend(0_u64.to_le_bytes());
    elf.extend(code_len.to_le_bytes());
    elf.extend(NAMES);
    elf.resize(sections_at as usize, 0);
    let code_section =
        Section { name: XDP, kind: 1, flags: 6, offset: FILE_HEADER, len: code_len, link: [0, 0], entry: 0 };
    let symbols = Section {
        name: SYMTAB,
        kind: 2,
        flags: 0,
        offset: symbols_at,
        len: symbols_len,
        link: [3, 1],
        entry: 24,
    };
    let names_len = NAMES.len() as u64;
    let names =
        Section { name: STRTAB, kind: 3, flags: 0, offset: names_at, len: names_len, link: [0, 0], entry: 0 };
    elf.extend([0; SECTION_HEADER]);
    for section in [code_section, symbols, names] {
        section.write(&mut elf);
    }
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_branch_ends_at_the_abort() {
        let code = assemble(3, 200, &[66, 162]);
        let offset = (code[5] >> 16) as u16 as usize;
        assert_eq!(code[5 + 1 + offset..], [move_imm(R0, 0), EXIT]);
    }

    #[test]
    fn the_loader_finds_the_program_in_the_object() {
        let elf = object(&assemble(1, 200, &[66]));
        let section = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap()) as usize;
        let sections_at = section(40);
        assert_eq!(elf.len(), sections_at + 4 * 64);
        let names_at = section(sections_at + 3 * 64 + 24);
        assert_eq!(&elf[names_at + 1..names_at + 4], b"xdp");
        assert_eq!(&elf[names_at + 21..names_at + 29], b"generate");
    }
}
